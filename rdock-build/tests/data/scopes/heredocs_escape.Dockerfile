# escape=`
FROM scratch
ENV a=value
LABEL l=`$a m="`$a" n=\x
COPY <<one C:\dir /x/
`$a \$a \x
one
