FROM scratch AS base
ARG version=1
ENV home=/x
WORKDIR /x
RUN true
COPY a b
CMD ["x"]
