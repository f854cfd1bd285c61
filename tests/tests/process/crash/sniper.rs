//! One send, and a kill at the first byte of its answer: nothing can be nearer behind the commit.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use e2e::process::Broker;
use serde_json::Value;

use super::history::{History, Message};
use super::load::{NAMESPACE, body};

/// The sniper's number as a producer.
const PRODUCER: u32 = 1_000;

/// Sends message `number` and kills the broker when the answer begins; writes down what the answer was.
///
/// An HTTP client would be too slow: it is done with an answer when a commit that came late is made too.
pub(super) fn shoot(broker: &Broker, number: u32, history: &History) {
    let (message, killer) = ((PRODUCER, number), broker.killer());
    let mut connection = TcpStream::connect(broker.address()).unwrap();
    connection.set_nodelay(true).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let request = request(broker.address(), message);
    history.attempted(&[message], false);
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = vec![0; 16 << 10];
    let began = connection.read(&mut answer);
    killer.kill();
    answer.truncate(began.expect("the begin of an answer"));
    // An answer is small and mostly came whole; of one that did not, the rest may still be on its way.
    let _ = connection.read_to_end(&mut answer);
    let text = String::from_utf8(answer).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let json = text.split_once("\r\n\r\n").and_then(|(_, json)| serde_json::from_str::<Value>(json).ok());
    match json {
        Some(envelope) => {
            let id = envelope["result"]["ids"][0].as_str().expect("the id of what was sent").to_owned();
            history.stored(&[message], vec![id]);
        }
        None => history.unknown(false),
    }
}

fn request(address: SocketAddr, message: Message) -> String {
    let body = serde_json::json!({ "body": body(message) }).to_string();
    let length = body.len();
    format!(
        "POST /client/v4/accounts/{NAMESPACE}/queues/orders/messages HTTP/1.1\r\nhost: {address}\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}
