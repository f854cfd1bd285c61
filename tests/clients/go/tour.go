// Goes through every call of Cloudflare's Go SDK that Capstan answers, and prints what the SDK returned for each.
//
// The queue is empty, has a pull consumer, and its retries are due at once.
// Arguments: tour|purge BASE_URL (ending in /client/v4) ACCOUNT QUEUE.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cloudflare/cloudflare-go/v7"
	"github.com/cloudflare/cloudflare-go/v7/option"
	"github.com/cloudflare/cloudflare-go/v7/queues"
)

type told = map[string]any

type client struct {
	service *queues.QueueService
	context context.Context
	account string
	queue   string
}

func main() {
	if len(os.Args) != 5 || !strings.HasSuffix(strings.TrimSuffix(os.Args[2], "/"), "/client/v4") {
		fmt.Fprintf(os.Stderr, "usage: %s tour|purge http://HOST:PORT/client/v4 ACCOUNT QUEUE\n", os.Args[0])
		os.Exit(2)
	}
	sdk := cloudflare.NewClient(option.WithBaseURL(os.Args[2]), option.WithAPIToken("any"))
	c := client{sdk.Queues, context.Background(), os.Args[3], os.Args[4]}
	call := map[string]func() told{"tour": c.tour, "purge": c.purge}[os.Args[1]]
	if call == nil {
		fail(fmt.Errorf("%q is neither tour nor purge", os.Args[1]))
	}
	must(0, json.NewEncoder(os.Stdout).Encode(call()))
}

func (c *client) tour() told {
	t := told{}
	list := must(c.service.List(c.context, queues.QueueListParams{AccountID: cloudflare.F(c.account)}))
	names := []string{}
	for _, queue := range list.Result {
		names = append(names, queue.QueueName)
	}
	t["list"] = names
	get := must(c.service.Get(c.context, c.queue, queues.QueueGetParams{AccountID: cloudflare.F(c.account)}))
	t["get"] = told{"queue_id": get.QueueID, "retention": get.Settings.MessageRetentionPeriod}
	consumers := must(c.service.Consumers.List(c.context, c.queue, queues.ConsumerListParams{AccountID: cloudflare.F(c.account)}))
	id := consumers.Result[0].ConsumerID
	consumer := must(c.service.Consumers.Get(c.context, c.queue, id, queues.ConsumerGetParams{AccountID: cloudflare.F(c.account)}))
	t["consumer"] = told{"id": consumer.ConsumerID, "type": consumer.Type, "queue_name": consumer.QueueName}

	t["push"] = c.push(queues.MessagePushParamsBody{Body: cloudflare.F[any](told{"n": 1, "text": "grüße"})}).BacklogCount
	t["push_text"] = c.push(queues.MessagePushParamsBodyMqQueueMessageText{
		Body:        cloudflare.F("plain"),
		ContentType: cloudflare.F(queues.MessagePushParamsBodyMqQueueMessageTextContentTypeText),
	}).BacklogCount
	t["bulk_push"] = must(c.service.Messages.BulkPush(c.context, c.queue, queues.MessageBulkPushParams{
		AccountID: cloudflare.F(c.account),
		Messages: cloudflare.F([]queues.MessageBulkPushParamsMessageUnion{
			queues.MessageBulkPushParamsMessage{Body: cloudflare.F[any](told{"n": 3})},
			queues.MessageBulkPushParamsMessage{Body: cloudflare.F[any](told{"n": 4}), DelaySeconds: cloudflare.F(3600.0)},
		}),
	})).Metadata.Metrics.BacklogCount
	metrics := c.metrics()
	t["metrics"] = told{"count": metrics.BacklogCount, "oldest_is_known": metrics.OldestMessageTimestampMs > 1.7e12}
	peeked := []told{}
	for _, message := range c.peek(2) {
		peeked = append(peeked, told{"body": message.Body, "has_ref": message.Ref != "", "metadata": message.Metadata})
	}
	t["peek"] = peeked

	pulled := c.pull()
	shown := []told{}
	for _, message := range pulled {
		shown = append(shown, told{"body": message.Body, "attempts": message.Attempts, "metadata": message.Metadata})
	}
	t["pull"] = shown
	t["empty"] = len(c.pull())
	acks := []queues.MessageAckParamsAck{}
	for _, message := range pulled[1:] {
		acks = append(acks, queues.MessageAckParamsAck{LeaseID: cloudflare.F(message.LeaseID)})
	}
	t["ack"] = c.ack(acks, []queues.MessageAckParamsRetry{
		{LeaseID: cloudflare.F(pulled[0].LeaseID), DelaySeconds: cloudflare.F(0.0)},
	})
	again := c.pull()
	t["again"] = told{"attempts": again[0].Attempts, "same": again[0].ID == pulled[0].ID}
	last := []queues.MessageAckParamsAck{{LeaseID: cloudflare.F(again[0].LeaseID)}}
	t["ack_again"] = c.ack(last, nil)
	t["ack_twice"] = c.ack(last, nil)
	t["after"] = c.metrics().BacklogCount

	_, err := c.service.Get(c.context, "nowhere", queues.QueueGetParams{AccountID: cloudflare.F(c.account)})
	t["unknown_queue"] = refused(err)
	_, err = c.service.Messages.Pull(c.context, c.queue, queues.MessagePullParams{
		AccountID: cloudflare.F(c.account), BatchSize: cloudflare.F(1.5),
	})
	t["half_a_message"] = refused(err)
	return t
}

// Purges one message by its reference, and then all. The queue holds nothing before.
func (c *client) purge() told {
	t := told{}
	for n := range 3 {
		c.push(queues.MessagePushParamsBody{Body: cloudflare.F[any](n)})
	}
	peeked := c.peek(10)
	purged := must(c.service.Messages.Purge(c.context, c.queue, queues.MessagePurgeParams{
		AccountID: cloudflare.F(c.account),
		Refs: cloudflare.F([]queues.MessagePurgeParamsRef{
			{Ref: cloudflare.F(peeked[0].Ref)},
		}),
	}))
	t["by_ref"] = told{"errors": len(purged.Errors), "warnings": len(purged.Warnings), "left": c.metrics().BacklogCount}
	start := func(permanently bool) (*queues.Queue, error) {
		return c.service.Purge.Start(c.context, c.queue, queues.PurgeStartParams{
			AccountID: cloudflare.F(c.account), DeleteMessagesPermanently: cloudflare.F(permanently),
		})
	}
	_, err := start(false)
	t["unconfirmed"] = refused(err)
	t["start"] = must(start(true)).QueueID
	status := &queues.PurgeStatusResponse{}
	for n := 0; n < 100 && status.Completed != "true"; n++ {
		status = must(c.service.Purge.Status(c.context, c.queue, queues.PurgeStatusParams{AccountID: cloudflare.F(c.account)}))
	}
	t["status"] = told{"completed": status.Completed, "started_at": status.StartedAt}
	t["left"] = c.metrics().BacklogCount
	return t
}

func (c *client) push(body queues.MessagePushParamsBodyUnion) queues.MessagePushResponseMetadataMetrics {
	params := queues.MessagePushParams{AccountID: cloudflare.F(c.account), Body: body}
	return must(c.service.Messages.Push(c.context, c.queue, params)).Metadata.Metrics
}

func (c *client) metrics() *queues.QueueGetMetricsResponse {
	return must(c.service.GetMetrics(c.context, c.queue, queues.QueueGetMetricsParams{AccountID: cloudflare.F(c.account)}))
}

func (c *client) peek(most float64) []queues.MessagePeekResponseMessage {
	params := queues.MessagePeekParams{AccountID: cloudflare.F(c.account), BatchSize: cloudflare.F(most)}
	return must(c.service.Messages.Peek(c.context, c.queue, params)).Messages
}

func (c *client) pull() []queues.MessagePullResponseMessage {
	return must(c.service.Messages.Pull(c.context, c.queue, queues.MessagePullParams{
		AccountID: cloudflare.F(c.account), BatchSize: cloudflare.F(10.0), VisibilityTimeoutMs: cloudflare.F(60000.0),
	})).Messages
}

func (c *client) ack(acks []queues.MessageAckParamsAck, retries []queues.MessageAckParamsRetry) told {
	params := queues.MessageAckParams{AccountID: cloudflare.F(c.account), Acks: cloudflare.F(acks)}
	if retries != nil {
		params.Retries = cloudflare.F(retries)
	}
	done := must(c.service.Messages.Ack(c.context, c.queue, params))
	return told{"acks": done.AckCount, "retries": done.RetryCount, "warnings": len(done.Warnings)}
}

// The status and the first code of a call that must be refused.
func refused(err error) told {
	var refusal *queues.Error
	if !errors.As(err, &refusal) {
		return told{"error": fmt.Sprint(err)}
	}
	return told{"status": refusal.StatusCode, "code": refusal.Errors[0].Code}
}

func must[T any](value T, err error) T {
	if err != nil {
		fail(err)
	}
	return value
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
