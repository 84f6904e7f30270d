FROM scratch
COPY outside /outside
