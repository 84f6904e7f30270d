FROM scratch
ENV NAME=x
ARG known
LABEL a=$NAEM b=$known c=${other:-d}
