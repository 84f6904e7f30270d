ARG a=global
FROM scratch
ENV before=$a
ARG a
ENV after=$a
ARG a=stage
ENV later=$a
FROM scratch AS fresh
ENV none=$a
