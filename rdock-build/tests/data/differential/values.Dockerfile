FROM base
ARG port=81 signal=USR1
LABEL one=1 "two words"="a b" from.base=changed
LABEL old the rest  of it
LABEL $port=${signal} 'single'='$port'
EXPOSE 80 443/tcp 53/UDP 8000-8002 $port ${port}/udp
STOPSIGNAL SIG${signal}
USER app:$port
SHELL ["/bin/sh", "-x", "-c"]
MAINTAINER Some Body <some@body>
