FROM scratch
run x
RUN y
Run z
