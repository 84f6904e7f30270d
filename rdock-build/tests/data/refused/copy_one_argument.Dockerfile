FROM scratch
COPY file
