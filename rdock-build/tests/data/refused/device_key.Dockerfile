FROM scratch
RUN --device=a,requird=true true
