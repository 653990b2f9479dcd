//! What is served over HTTP: the embedded page, health, statistics and the way to the socket.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::extract::{ConnectInfo, Query, State, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use rust_embed::RustEmbed;
use serde::Deserialize;
use serde_json::json;

use crate::cli::TlsFiles;
use crate::faults;
use crate::rooms::{Rooms, VideoCodec};
use crate::signal::{self, MESSAGE_BYTES_MAX, Visitor};
use crate::stream;

/// Longest name of a room or a participant.
const NAME_CHARS_MAX: usize = 64;

/// The page loads nothing from elsewhere and is shown in nobody's frame.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'";

#[derive(RustEmbed)]
#[folder = "assets/"]
struct Assets;

/// Everything there is to ask for; with `has_chaos` faults, too.
pub(crate) fn app(rooms: Arc<Rooms>, has_chaos: bool) -> Router {
    let config = json!({ "chaos": has_chaos });
    Router::new()
        .route("/healthz", get(health))
        .route("/stats", get(stats))
        .route("/ws", get(socket))
        .route("/ws/stream", get(stream_socket))
        .route("/api/config", get(async move || Json(config)))
        .merge(faults::routes(Arc::clone(&rooms), has_chaos))
        .fallback(get(asset))
        .with_state(rooms)
}

/// Opens the port, before anything else is started.
pub(crate) fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| {
        format!("cannot listen on {address}: is another server running? See --listen")
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Reads certificate and key.
pub(crate) async fn tls(files: Option<TlsFiles>) -> anyhow::Result<Option<RustlsConfig>> {
    let Some(TlsFiles { cert, key }) = files else {
        return Ok(None);
    };
    // Fails only if one is installed already, which would do as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = RustlsConfig::from_pem_file(&cert, &key).await;
    let read = config.with_context(|| {
        let (cert, key) = (cert.display(), key.display());
        format!("cannot use the certificate {cert} with the key {key}")
    })?;
    Ok(Some(read))
}

/// Serves until `handle` is told to shut down.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<RustlsConfig>,
    app: Router,
    handle: Handle<SocketAddr>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    match tls {
        Some(config) => {
            tracing::info!("serving https://{address}");
            let server = axum_server::from_tcp_rustls(listener, config)?;
            server.handle(handle).serve(service).await
        }
        None => {
            tracing::info!("serving http://{address}");
            let server = axum_server::from_tcp(listener)?;
            server.handle(handle).serve(service).await
        }
    }
}

async fn health(State(rooms): State<Arc<Rooms>>) -> Response {
    match rooms.is_alive() {
        true => "ok\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "no worker is alive\n").into_response(),
    }
}

async fn stats(State(rooms): State<Arc<Rooms>>) -> Response {
    Json(rooms.stats()).into_response()
}

#[derive(Deserialize)]
struct SocketQuery {
    room: String,
    name: String,
    codec: Option<String>,
}

async fn socket(
    State(rooms): State<Arc<Rooms>>,
    Query(query): Query<SocketQuery>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    if !is_own_page(&headers) {
        return (StatusCode::FORBIDDEN, "this is another site's server\n").into_response();
    }
    let visitor = match visitor(query) {
        Ok(visitor) => visitor,
        Err(text) => return (StatusCode::BAD_REQUEST, text).into_response(),
    };
    upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .on_upgrade(move |socket| signal::serve(socket, visitor, rooms))
}

#[derive(Deserialize)]
struct StreamQuery {
    room: String,
    peer: String,
}

async fn stream_socket(
    State(rooms): State<Arc<Rooms>>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let Some(client) = stream::local_client(address, &headers) else {
        let text = "streams are for programs on the server's own machine: use 127.0.0.1\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    };
    let peer = match rooms.peer(&query.room, &query.peer) {
        Ok(peer) => peer,
        Err(text) => return (StatusCode::NOT_FOUND, text + "\n").into_response(),
    };
    upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .on_upgrade(move |socket| stream::serve(socket, peer, client))
}

/// Whether a browser that asks shows a page of this server; what is no browser says nothing.
pub(crate) fn is_own_page(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let origin = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"));
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    matches!((origin, host), (Some((_, origin)), Some(host)) if origin.eq_ignore_ascii_case(host))
}

fn visitor(query: SocketQuery) -> Result<Visitor, String> {
    for (what, name) in [("room", &query.room), ("name", &query.name)] {
        let length = name.chars().count();
        if !(1..=NAME_CHARS_MAX).contains(&length) || name.chars().any(char::is_control) {
            return Err(format!(
                "{what}: give 1 to {NAME_CHARS_MAX} printable characters\n"
            ));
        }
    }
    let codec = match query.codec.as_deref() {
        None => VideoCodec::default(),
        Some(name) => VideoCodec::from_name(name)
            .ok_or_else(|| format!("codec: {name:?} is none of VP8, VP9, H264\n"))?,
    };
    Ok(Visitor {
        room: query.room,
        name: query.name,
        codec,
    })
}

async fn asset(uri: Uri) -> Response {
    let path = match uri.path().trim_start_matches('/') {
        "" => "index.html",
        path => path,
    };
    let Some(file) = Assets::get(path) else {
        return (StatusCode::NOT_FOUND, "not found\n").into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, content_type(path)),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, file.data).into_response()
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.') {
        Some((_, "html")) => "text/html; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "js")) => "text/javascript; charset=utf-8",
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(room: &str, name: &str, codec: Option<&str>) -> SocketQuery {
        SocketQuery {
            room: room.into(),
            name: name.into(),
            codec: codec.map(Into::into),
        }
    }

    #[test]
    fn other_sites_pages_are_refused() {
        let rows = [
            (None, true),
            (Some("http://call.example:3000"), true),
            (Some("https://CALL.example:3000"), true),
            (Some("http://call.example"), false),
            (Some("http://evil.example"), false),
            (Some("null"), false),
        ];
        for (origin, expected) in rows {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, "call.example:3000".parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(is_own_page(&headers), expected, "{origin:?}");
        }
    }

    #[test]
    fn visitors_must_have_names_and_a_known_codec() {
        assert!(visitor(query("r", "n", None)).is_ok_and(|v| v.codec == VideoCodec::Vp8));
        assert!(visitor(query("r", "n", Some("vp9"))).is_ok_and(|v| v.codec == VideoCodec::Vp9));
        let long = "x".repeat(NAME_CHARS_MAX + 1);
        let refused = [
            (query("", "n", None), "room"),
            (query("r", &long, None), "name"),
            (query("r", "a\nb", None), "name"),
            (query("r", "n", Some("AV2")), "codec"),
        ];
        for (query, what) in refused {
            let error = visitor(query).err().unwrap();
            assert!(error.starts_with(what), "{error}");
        }
    }

    #[test]
    fn everything_the_page_asks_for_is_embedded() {
        for path in [
            "index.html",
            "style.css",
            "app.js",
            "call.js",
            "signal.js",
            "tiles.js",
            "chaos.js",
            "strip.js",
            "gaps.js",
        ] {
            assert!(Assets::get(path).is_some(), "{path}");
        }
        assert!(Assets::get("mediasoup-client.js").is_some());
        assert!(Assets::get("mediasoup-client.LICENSE").is_some());
    }
}
