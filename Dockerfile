# An image of nothing but the binary and the certificates of public authorities. `make image` builds it and tells it its
# version, because the repository itself is not sent there.

FROM --platform=$BUILDPLATFORM golang:1.26.8 AS build
WORKDIR /src
COPY go.mod go.sum ./
COPY core core
COPY ports ports
COPY adapters adapters
COPY app app
ARG TARGETOS TARGETARCH
ARG VERSION=unknown REVISION=unknown
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X github.com/relay-jobs/relay/app.version=$VERSION -X github.com/relay-jobs/relay/app.revision=$REVISION" \
    -o /relay ./app/relay

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /relay /relay
COPY LICENSE /LICENSE
# Inside a container nobody reaches loopback addresses. Publish 8080; 9090 is for operators alone.
ENV RELAY_HTTP_ADDR=0.0.0.0:8080 RELAY_ADMIN_ADDR=0.0.0.0:9090
EXPOSE 8080 9090
USER 65532:65532
# Who runs the container asks /livez and /readyz: there is no shell here, nor anything else, to ask with.
ENTRYPOINT ["/relay"]
CMD ["serve"]
