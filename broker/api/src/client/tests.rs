//! Addresses, and pulls at a broker that answers slowly.

use super::*;

#[test]
fn only_http_addresses_are_taken() {
    for good in ["http://127.0.0.1:9796", "http://capstan-default.shop.svc", "https://queues.example/"] {
        assert!(Client::new(good).is_ok(), "{good}");
    }
    for bad in
        ["", "127.0.0.1:9796", "ftp://x", "http://", "http://host/foo", "http://host/?a", "http://host#a"]
    {
        assert!(matches!(Client::new(bad), Err(ClientError::Address(_))), "{bad}");
    }
}

/// Takes a connection, and reads its request.
async fn asked(listener: &tokio::net::TcpListener) -> tokio::net::TcpStream {
    use tokio::io::AsyncReadExt;
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"}") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream
}

#[tokio::test]
async fn leases_are_counted_from_the_head_of_an_answer_and_none_is_taken_while_a_large_one_is_read() {
    use tokio::io::AsyncWriteExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let body = serde_json::to_string(&Envelope::success(Pulled::default())).unwrap();
    let large = usize::try_from(LARGE).unwrap() + 1;
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {large}\r\n\r\n"
    );
    let body = body + &" ".repeat(large);
    let pull = || {
        let client = client.clone();
        let name = Name::new("orders").unwrap();
        tokio::spawn(async move {
            client.pull_until(&name, &name, &Pull::default(), std::future::pending()).await.unwrap().1
        })
    };
    let first = pull();
    let mut one = asked(&listener).await;
    let second = pull();
    let mut two = asked(&listener).await;
    one.write_all(head.as_bytes()).await.unwrap();
    let turns = async {
        while client.large.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), turns).await.expect("the first is read");
    two.write_all(head.as_bytes()).await.unwrap();
    let third = pull();
    let early = tokio::time::timeout(Duration::from_millis(300), asked(&listener)).await;
    assert!(early.is_err(), "a third was asked for while a large answer was read");
    let released = Instant::now();
    for stream in [&mut one, &mut two] {
        stream.write_all(&body.as_bytes()[..large]).await.unwrap();
    }
    assert!(first.await.unwrap() < released);
    assert!(second.await.unwrap() < released, "its leases began before it was its turn");
    let mut three = asked(&listener).await;
    let all = head + &body[..large];
    three.write_all(all.as_bytes()).await.unwrap();
    assert!(third.await.unwrap() > released);
}
