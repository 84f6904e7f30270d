FROM base
RUN env | grep -i proxy | sort > /x
ARG HTTP_PROXY
RUN true
