FROM scratch
ARG x=arg
ENV x=env
RUN a
ENV y=env
ARG y=arg
RUN b
ENV z=$x$y
