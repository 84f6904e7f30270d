FROM scratch AS base
ARG a=1
ENV b=2
FROM base AS next
ENV c=$a$b
FROM BASE
ENV d=$a$b$c
