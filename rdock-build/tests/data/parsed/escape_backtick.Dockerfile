# escape=`
FROM scratch
ENV path=C:\dir\ other=`"quoted`"
RUN one `
 two
COPY <<E /x
\$kept $a
E
