FROM scratch
COPY --exclude=*.md --exclude=.hidden dir /a/
COPY --exclude=sub/deep dir /b/
COPY --exclude=**/*.txt dir other /c/
ADD --exclude=*.log logs /d/
COPY --exclude=* --exclude=!keep.log logs /e/
