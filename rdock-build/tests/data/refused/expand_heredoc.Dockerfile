FROM scratch
COPY <<E /x
line ${
E
