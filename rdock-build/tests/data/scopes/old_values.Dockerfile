FROM scratch
ENV a=1
ENV a=2 b=$a
ENV c=$b$a
ARG d=1 e=$d
