FROM scratch
RUN x \

  y
