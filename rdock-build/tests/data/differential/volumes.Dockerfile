FROM base
RUN mkdir /data && echo before > /data/before
VOLUME /data
RUN echo after > /data/after
COPY a.txt /data/
VOLUME ["/b c", "/data"]
VOLUME /v1 $FROM_BASE
