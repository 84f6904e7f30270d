# escape=`
FROM base
ENV path=C:\dir quoted="a`"b" blank=a` b
RUN echo one `
  two > /x
COPY a.txt `
  /y/
LABEL p=$path
