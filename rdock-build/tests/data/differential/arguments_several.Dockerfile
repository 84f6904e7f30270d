FROM base
ARG a=1 b=$a c
ARG a=2
RUN echo "$a $b ${c-none}" > /x
RUN true
