FROM scratch
RUN --network=nnoe true
