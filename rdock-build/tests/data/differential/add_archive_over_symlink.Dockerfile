FROM base
RUN mkdir -p /real /x && ln -s /real /x/packed && mkdir -m 0700 /y && mkdir -m 0700 /y/packed
ADD archive.tar /x/
ADD archive.tar /y/
