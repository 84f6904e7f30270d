# check=skip=all
FROM scratch as x
