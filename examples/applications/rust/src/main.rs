//! Takes batches of orders, and says of each what became of it.

use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

fn handle(order: &Value) -> Result<(), &'static str> {
    order["item"].as_str().map(drop).ok_or("an order needs an item")
}

async fn take(Json(batch): Json<Value>) -> Json<Value> {
    let (mut acks, mut retries) = (Vec::new(), Vec::new());
    for message in batch["messages"].as_array().into_iter().flatten() {
        let (id, attempts) = (&message["id"], &message["attempts"]);
        match handle(&message["body"]) {
            Ok(()) => acks.push(id),
            Err(error) => {
                println!("message {id} failed, attempt {attempts}: {error}");
                retries.push(json!({"msgId": id, "delaySeconds": attempts}));
            }
        }
    }
    Json(json!({"explicitAcks": acks, "retryMessages": retries}))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::var("PORT").map_or(Ok(8080), |port| port.parse::<u16>())?;
    let listener = tokio::net::TcpListener::bind(("0.0.0.0", port)).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    // Open requests are finished.
    let end = async move { terminate.recv().await.unwrap_or_default() };
    axum::serve(listener, Router::new().route("/orders", post(take))).with_graceful_shutdown(end).await?;
    Ok(())
}
