//! A client's end of the server's sockets: the envelope, requests one at a time.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// How long the server may take to let a client in or to answer it.
const ANSWER_TIME: Duration = Duration::from_secs(20);

/// How long the server may take to say goodbye.
const CLOSE_TIME: Duration = Duration::from_secs(2);

pub(super) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    last_id: u64,
    /// Notifications that came while an answer was waited for.
    unread: VecDeque<Value>,
}

impl Client {
    /// Opens the socket at `path` of a server (`ws://host:port`).
    pub(super) async fn connect(
        server: &str,
        path: &str,
        query: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let url = url(server, path, query)?;
        let connecting = timeout(ANSWER_TIME, connect_async(url)).await;
        let connected = connecting.with_context(|| format!("{server} does not answer"))?;
        let (socket, _) = connected.map_err(|error| explain(server, error))?;
        Ok(Self {
            socket,
            last_id: 0,
            unread: VecDeque::new(),
        })
    }

    /// The address this end has, as the server sees it.
    pub(super) fn local_ip(&self) -> anyhow::Result<IpAddr> {
        match self.socket.get_ref() {
            MaybeTlsStream::Plain(stream) => Ok(stream.local_addr()?.ip()),
            _ => bail!("the connection has no address"),
        }
    }

    /// Sends a request, with `members` besides method and target, and waits for its answer.
    pub(super) async fn request(
        &mut self,
        target: &str,
        method: &str,
        members: Value,
    ) -> anyhow::Result<Value> {
        self.last_id += 1;
        let id = self.last_id;
        let data = message(target, method, members);
        let request = json!({ "request": true, "id": id, "data": data });
        let answered = async {
            self.send(&request).await?;
            loop {
                let mut message = self.read().await?;
                if message["response"] == true && message["id"] == id {
                    return Ok(message);
                }
                if message["notification"] == true {
                    self.unread.push_back(message["data"].take());
                }
            }
        };
        let answer: anyhow::Result<Value> = timeout(ANSWER_TIME, answered)
            .await
            .unwrap_or_else(|_| Err(anyhow!("no answer within {ANSWER_TIME:?}")));
        let mut answer = answer.with_context(|| format!("{method} failed"))?;
        match answer["ok"] == true {
            true => Ok(answer["data"].take()),
            false => {
                let text = answer["error"].as_str().unwrap_or("no reason given");
                bail!("{method} is refused: {text}")
            }
        }
    }

    /// Tells the server something.
    pub(super) async fn notify(&mut self, target: &str, method: &str) -> anyhow::Result<()> {
        let mut data = message(target, method, json!({}));
        data["notification"] = true.into();
        let notification = json!({ "notification": true, "data": data });
        self.send(&notification).await
    }

    /// The next notification. May be given up and called again.
    ///
    /// # Errors
    /// The server closed the socket; the text says why.
    pub(super) async fn notification(&mut self) -> anyhow::Result<Value> {
        if let Some(unread) = self.unread.pop_front() {
            return Ok(unread);
        }
        loop {
            let mut message = self.read().await?;
            if message["notification"] == true {
                return Ok(message["data"].take());
            }
        }
    }

    /// Says goodbye; a server that does not answer is not waited for.
    pub(super) async fn close(mut self) {
        let goodbye = async {
            let _ = self.socket.close(None).await;
            while self.socket.next().await.is_some_and(|read| read.is_ok()) {}
        };
        let _ = timeout(CLOSE_TIME, goodbye).await;
    }

    async fn send(&mut self, message: &Value) -> anyhow::Result<()> {
        let text = Message::text(message.to_string());
        self.socket.send(text).await.context("connection lost")
    }

    async fn read(&mut self) -> anyhow::Result<Value> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    return serde_json::from_str(&text).context("the server sent no JSON");
                }
                Some(Ok(Message::Close(Some(frame)))) if !frame.reason.is_empty() => {
                    bail!("the server closed the connection: {}", frame.reason)
                }
                Some(Ok(Message::Close(_))) | None => bail!("the server closed the connection"),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error).context("connection lost"),
            }
        }
    }
}

fn message(target: &str, method: &str, mut members: Value) -> Value {
    members["target"] = target.into();
    members["method"] = method.into();
    members
}

fn url(server: &str, path: &str, query: &[(&str, &str)]) -> anyhow::Result<String> {
    if !server.starts_with("ws://") {
        bail!("--server {server}: give an address like ws://127.0.0.1:3000");
    }
    let query = serde_urlencoded::to_string(query)?;
    Ok(format!("{}{path}?{query}", server.trim_end_matches('/')))
}

fn explain(server: &str, error: tungstenite::Error) -> anyhow::Error {
    match error {
        tungstenite::Error::Http(response) => {
            let status = response.status();
            let body = response.into_body().unwrap_or_default();
            match String::from_utf8_lossy(&body).trim() {
                "" => anyhow!("{server} refuses: {status}"),
                text => anyhow!("{server} refuses: {text}"),
            }
        }
        error => anyhow!("{server} is not reachable: is `broth serve` running there? ({error})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_into_addresses_safely() {
        let query = [("room", "a&b=c d/é"), ("name", "+")];
        assert_eq!(
            url("ws://h:1/", "/ws", &query).unwrap(),
            "ws://h:1/ws?room=a%26b%3Dc+d%2F%C3%A9&name=%2B"
        );
        for server in ["http://h", "wss://h", "h:3000"] {
            assert!(url(server, "/ws", &query).is_err(), "{server}");
        }
    }
}
