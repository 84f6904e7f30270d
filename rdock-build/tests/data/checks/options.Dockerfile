# check=skip=JSONArgsRecommended,FromAsCasing;error=true
FROM scratch as x
# check=skip=MaintainerDeprecated
MAINTAINER me
CMD x
MAINTAINER you
