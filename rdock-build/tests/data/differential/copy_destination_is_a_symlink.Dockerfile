FROM base
RUN mkdir -p /real/deep && ln -s /real /link && ln -s real/deep /relative && ln -s /nowhere /dangling
COPY a.txt /link/
COPY dir /relative
COPY other /link/new/
COPY a.txt /dangling/a.txt
