FROM base
RUN echo before > /x
RUN echo out; exit 7
