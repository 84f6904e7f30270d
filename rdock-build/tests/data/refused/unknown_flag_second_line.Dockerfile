FROM scratch
COPY --link \
     --chwon=a b c
