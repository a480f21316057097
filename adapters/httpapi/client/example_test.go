package client_test

import (
	"context"
	"fmt"

	"github.com/relay-jobs/relay/adapters/httpapi/client"
)

// One job, enqueued once however often this is repeated.
func ExampleNewClientWithResponses() {
	relay, err := client.NewClientWithResponses("http://127.0.0.1:8080", client.WithToken("relay_sk_…"))
	if err != nil {
		fmt.Println(err)
		return
	}
	once := "order-1815"
	answer, err := relay.ExecuteWithResponse(context.Background(), nil, client.ExecuteRequest{
		ActionProvider: "google", ActionName: "gmail.send", Params: map[string]any{"to": "ada@example.com"},
		ClientRequestID: &once,
	})
	switch {
	case err != nil:
		fmt.Println("no answer:", err)
	case answer.JSON200 != nil:
		fmt.Println(answer.JSON200.JobID, answer.Headers200.Location)
	case client.ProblemOf(answer) != nil:
		fmt.Println("refused:", client.ProblemOf(answer).Code)
	default:
		fmt.Println("not Relay's answer:", answer.Status())
	}
}
