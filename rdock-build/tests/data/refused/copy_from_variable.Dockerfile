FROM scratch
COPY --from=$base a b
