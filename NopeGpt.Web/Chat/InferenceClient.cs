using System.Diagnostics;
using System.Globalization;
using System.Net.Http.Headers;
using System.Net.ServerSentEvents;
using System.Runtime.CompilerServices;
using System.Text.Json;
using System.Text.Json.Nodes;
using NopeGpt.Jobs;

namespace NopeGpt.Web.Chat;

/// <summary>Talks to the process that holds the models, and starts it when the first question comes.</summary>
public sealed class InferenceClient(ModelProcess process)
{
    /// <summary>Streams a reply as it is written.</summary>
    /// <exception cref="InferenceException">No reply, or no more of it; its message is a sentence to show.</exception>
    public async IAsyncEnumerable<ChatPiece> ChatAsync(ChatRequest request, [EnumeratorCancellation] CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(request);
        using HttpResponseMessage response = await SendAsync(() => Question(request), cancel);
        if (!response.IsSuccessStatusCode) throw new InferenceException(await RefusalAsync(response, cancel));
        await using Stream body = await response.Content.ReadAsStreamAsync(cancel);
        await using IAsyncEnumerator<SseItem<string>> items = SseParser.Create(body).EnumerateAsync(cancel).GetAsyncEnumerator(cancel);
        ReplyMeter meter = new();
        while (await NextAsync(items, cancel) is { } data && data != "[DONE]")
        {
            if (meter.Read(data) is { } piece) yield return piece;
        }
        if (!meter.IsFinished) throw new InferenceException(await process.DescribeEndAsync());
    }

    /// <summary>Sends a request to the model process, starting it where it does not run. The response's headers have come; its body streams.</summary>
    /// <param name="make">Makes the request; called again where the process turned out to be gone before it was reached.</param>
    /// <exception cref="InferenceException">The process does not start, or ended.</exception>
    internal async Task<HttpResponseMessage> SendAsync(Func<HttpRequestMessage> make, CancellationToken cancel)
    {
        for (int attempt = 0; ; attempt++)
        {
            HttpClient http = await process.EnsureAsync(cancel);
            try
            {
                using HttpRequestMessage request = make();
                return await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, cancel);
            }
            catch (HttpRequestException e) when (e.HttpRequestError == HttpRequestError.ConnectionError && attempt < 2)
            {
                // It ended between the look and the request, for example because it was idle: start it again.
                process.Forget();
            }
            catch (HttpRequestException e)
            {
                throw new InferenceException(await process.DescribeEndAsync(), e);
            }
        }
    }

    /// <summary>The sentence for a reply that broke off.</summary>
    internal Task<string> DescribeEndAsync() => process.DescribeEndAsync();

    private async Task<string?> NextAsync(IAsyncEnumerator<SseItem<string>> items, CancellationToken cancel)
    {
        try
        {
            return await items.MoveNextAsync() ? items.Current.Data : null;
        }
        catch (Exception e) when (e is IOException or HttpRequestException && !cancel.IsCancellationRequested)
        {
            throw new InferenceException(await process.DescribeEndAsync(), e);
        }
    }

    private static HttpRequestMessage Question(ChatRequest request)
    {
        JsonObject body = new()
        {
            ["model"] = request.Model,
            ["messages"] = new JsonArray([.. request.Messages.Select(m => (JsonNode)new JsonObject { ["role"] = m.Role, ["content"] = m.Content })]),
            ["temperature"] = request.Temperature,
            ["top_k"] = request.TopK,
            ["top_p"] = request.TopP,
            ["max_tokens"] = request.MaxTokens,
            ["stream"] = true,
            ["stream_options"] = new JsonObject { ["include_usage"] = true },
        };
        if (request.Seed is { } seed) body["seed"] = seed;
        HttpRequestMessage message = new(HttpMethod.Post, "/v1/chat/completions") { Content = JsonContent.Create(body) };
        message.Headers.Accept.Add(new MediaTypeWithQualityHeaderValue("text/event-stream"));
        return message;
    }

    private static async Task<string> RefusalAsync(HttpResponseMessage response, CancellationToken cancel)
    {
        string text = await response.Content.ReadAsStringAsync(cancel);
        return ReplyMeter.ErrorIn(text) ?? string.Create(CultureInfo.InvariantCulture, $"The model process answered with status {(int)response.StatusCode} and no explanation.");
    }
}
