using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Inference.Http;

/// <summary>Writes one reply in OpenAI's JSON: whole, or as server-sent events whose last data piece carries finish reason and usage.</summary>
internal sealed class ReplyWriter(HttpResponse response, CompletionRequest request)
{
    public static JsonSerializerOptions Json { get; } = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        Converters = { new JsonStringEnumConverter(JsonNamingPolicy.SnakeCaseLower) },
    };

    private readonly bool _chat = request.Turns is not null;
    private readonly string _id = $"{(request.Turns is null ? "cmpl" : "chatcmpl")}-{Guid.NewGuid():n}";
    private readonly long _created = DateTimeOffset.UtcNow.ToUnixTimeSeconds();

    public GenerationClock Clock { get; } = new();

    /// <summary>Takes the tokens' probabilities, where they are asked for.</summary>
    public TokenScores? Scores { get; } = request.LogProbabilities is null ? null : new(request.Turns is not null);

    public bool Started { get; private set; }

    /// <summary>A comment, which clients skip: it says that the connection lives while the model is loaded.</summary>
    public async Task CommentAsync(string text)
    {
        Start();
        await response.WriteAsync($": {text}\n\n");
        await response.Body.FlushAsync();
    }

    /// <summary>A piece of a streamed reply.</summary>
    public Task PieceAsync(string text, int tokens, CancellationToken cancel)
    {
        object choice = _chat
            ? new { index = 0, delta = new { content = text }, logprobs = Scores?.Take(), finish_reason = (string?)null }
            : new { index = 0, text, logprobs = Scores?.Take(), finish_reason = (string?)null };
        return EventAsync(Envelope(choice, null, new { tokens, tokens_per_second = Math.Round(Clock.TokensPerSecond, 1) }), cancel);
    }

    /// <summary>The beginning of a streamed conversation's reply.</summary>
    public Task RoleAsync(CancellationToken cancel) => _chat
        ? EventAsync(Envelope(new { index = 0, delta = new { role = "assistant", content = "" }, finish_reason = (string?)null }, null, null), cancel)
        : Task.CompletedTask;

    public async Task EndAsync(FinishReason finish, int promptTokens, int tokens, CancellationToken cancel)
    {
        object choice = _chat ? new { index = 0, delta = new { }, logprobs = Scores?.Take(), finish_reason = finish } : new { index = 0, text = "", logprobs = Scores?.Take(), finish_reason = finish };
        await EventAsync(Envelope(choice, Usage(promptTokens, tokens), Figures()), cancel);
        await response.WriteAsync("data: [DONE]\n\n", cancel);
    }

    public Task WholeAsync(string text, FinishReason finish, int promptTokens, int tokens, CancellationToken cancel)
    {
        object choice = _chat
            ? new { index = 0, message = new { role = "assistant", content = text }, logprobs = Scores?.Take(), finish_reason = finish }
            : new { index = 0, text, logprobs = Scores?.Take(), finish_reason = finish };
        return response.WriteAsJsonAsync(Envelope(choice, Usage(promptTokens, tokens), Figures()), Json, cancel);
    }

    /// <summary>The answer is an error: its status where nothing was sent yet, an event of the stream where something was.</summary>
    public async Task ErrorAsync(ApiException error)
    {
        if (Started) await EventAsync(error.Body, CancellationToken.None);
        else await WriteErrorAsync(response, error);
    }

    public static Task WriteErrorAsync(HttpResponse response, ApiException error)
    {
        response.StatusCode = error.Status;
        return response.WriteAsJsonAsync(error.Body, error.Body.GetType(), Json);
    }

    private void Start()
    {
        if (Started) return;
        Started = true;
        response.ContentType = "text/event-stream";
        response.Headers.CacheControl = "no-cache";
    }

    private async Task EventAsync(object data, CancellationToken cancel)
    {
        Start();
        await response.WriteAsync($"data: {JsonSerializer.Serialize(data, data.GetType(), Json)}\n\n", cancel);
        await response.Body.FlushAsync(cancel);
    }

    private Dictionary<string, object> Envelope(object choice, object? usage, object? figures)
    {
        string kind = !_chat ? "text_completion" : request.Stream ? "chat.completion.chunk" : "chat.completion";
        Dictionary<string, object> envelope = new() { ["id"] = _id, ["object"] = kind, ["created"] = _created, ["model"] = request.Model, ["choices"] = new[] { choice } };
        if (usage is not null) envelope["usage"] = usage;
        if (figures is not null) envelope["nopegpt"] = figures;
        return envelope;
    }

    private static object Usage(int promptTokens, int tokens) => new { prompt_tokens = promptTokens, completion_tokens = tokens, total_tokens = promptTokens + tokens };

    private object Figures() =>
        new { seed = request.Seed, tokens_per_second = Math.Round(Clock.TokensPerSecond, 1), milliseconds_to_first_token = Math.Round(Clock.MillisecondsToFirstToken, 1) };
}
