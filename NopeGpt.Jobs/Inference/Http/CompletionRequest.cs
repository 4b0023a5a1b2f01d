using System.Text.Json;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Inference.Http;

/// <summary>A request to /v1/chat/completions or /v1/completions, checked.</summary>
/// <param name="Turns">The conversation; null for a plain completion.</param>
/// <param name="Prompt">The text to continue; null for a conversation.</param>
/// <param name="ContextLength">Tokens the model sees at once; null takes what it was trained with.</param>
/// <param name="LogProbabilities">How many alternatives come with the logarithm of each token's probability; null: neither is asked for.</param>
internal sealed record CompletionRequest(
    string Model, IReadOnlyList<ChatTurn>? Turns, string? Prompt, SamplingOptions Sampling, ulong Seed, int MaxTokens, IReadOnlyList<string> Stops, bool Stream, int? ContextLength, int? LogProbabilities)
{
    public const int MostTokens = 1_000_000, LongestContext = 1_048_576;
    private const int MostStops = 16, LongestStop = 1000, MostMessages = 10_000, MostAlternatives = 20;
    private const double ChatTemperature = 0.7;

    /// <exception cref="ApiException">Something is wrong with the fields.</exception>
    public static CompletionRequest Read(RequestBody body, bool chat)
    {
        string? model = body.Text("model");
        if (string.IsNullOrWhiteSpace(model)) body.Add("model", "model is missing: name a run's id, RUN_ID/STEP, or an absolute checkpoint folder (GET /v1/models lists them)");
        IReadOnlyList<ChatTurn>? turns = chat ? Messages(body) : null;
        string? prompt = chat ? null : Prompts(body);
        SamplingOptions defaults = chat ? new() { Temperature = ChatTemperature } : new();
        SamplingOptions sampling = new()
        {
            Temperature = body.Number("temperature", 0, 100) ?? defaults.Temperature,
            TopK = body.Whole("top_k", 0, int.MaxValue) ?? defaults.TopK,
            TopP = body.Number("top_p", double.Epsilon, 1) ?? defaults.TopP,
            MinP = body.Number("min_p", 0, 1) ?? defaults.MinP,
            RepeatPenalty = body.Number("repeat_penalty", 0, 1) ?? defaults.RepeatPenalty,
            RepeatWindow = body.Whole("repeat_window", 0, int.MaxValue) ?? defaults.RepeatWindow,
        };
        foreach (Problem problem in sampling.Problems()) body.Add(problem.Field, problem.ToString());
        int? maxTokens = body.Whole("max_tokens", 1, MostTokens);
        maxTokens = (chat ? body.Whole("max_completion_tokens", 1, MostTokens) : null) ?? maxTokens;
        CompletionRequest request = new(model ?? "", turns, prompt, sampling, body.Seed("seed") ?? Generation.NewSeed(), maxTokens ?? GenerationDefaults.MaxTokens,
            StopTexts(body), body.Flag("stream"), body.Whole("context_length", 1, LongestContext), Alternatives(body, chat));
        Others(body, chat);
        body.Check();
        return request;
    }

    /// <summary>The rest of OpenAI's fields: what has no effect is let through, what would be expected to have one is refused.</summary>
    private static void Others(RequestBody body, bool chat)
    {
        // The last piece always carries the usage, so include_usage changes nothing.
        body.Ignore("stream_options", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key");
        body.Only("n", "1");
        body.Only("presence_penalty", "0");
        body.Only("frequency_penalty", "0");
        body.Only("logit_bias", "{}");
        if (!chat)
        {
            body.Only("echo", "false");
            body.Only("best_of", "1");
            body.Only("suffix", "\"\"");
            return;
        }
        body.Only("tools", "[]");
        body.Only("tool_choice", "\"none\"");
    }

    /// <summary>A conversation asks with a flag and a number, a plain completion with a number.</summary>
    private static int? Alternatives(RequestBody body, bool chat)
    {
        if (!chat) return body.Whole("logprobs", 0, MostAlternatives);
        bool asked = body.Flag("logprobs");
        int? top = body.Whole("top_logprobs", 0, MostAlternatives);
        if (top > 0 && !asked) body.Add("top_logprobs", "top_logprobs needs logprobs: true beside it");
        return asked ? top ?? 0 : null;
    }

    private static string? Prompts(RequestBody body)
    {
        JsonElement? value = body.Find("prompt");
        if (value is { ValueKind: JsonValueKind.Array } list && list.GetArrayLength() == 1) value = list[0];
        string? prompt = value is { } one ? RequestBody.AsText(one) : "";
        if (prompt is null) body.Add("prompt", "prompt must be one text in valid Unicode");
        return prompt;
    }

    private static List<ChatTurn> Messages(RequestBody body)
    {
        List<ChatTurn> turns = [];
        if (body.Find("messages") is not { ValueKind: JsonValueKind.Array } list || list.GetArrayLength() is 0 or > MostMessages)
        {
            body.Add("messages", $"messages must be a list of 1 to {MostMessages} objects with role and content");
            return turns;
        }
        int index = 0;
        foreach (JsonElement message in list.EnumerateArray())
        {
            string at = $"messages[{index++}]";
            if (message.ValueKind != JsonValueKind.Object)
            {
                body.Add(at, $"{at} must be an object with role and content");
                continue;
            }
            string? role = message.TryGetProperty("role", out JsonElement named) ? RequestBody.AsText(named) : null;
            string? content = message.TryGetProperty("content", out JsonElement said) ? Content(said) : null;
            if (role is not ("system" or "developer" or "user" or "assistant")) body.Add($"{at}.role", $"{at}.role must be system, user or assistant");
            if (content is null) body.Add($"{at}.content", $"{at}.content must be a text in valid Unicode");
            if (role is not null && content is not null) turns.Add(new(role == "developer" ? "system" : role, content, Ended(message)));
        }
        return turns;
    }

    /// <summary>A text, or OpenAI's list of {type: text, text} parts.</summary>
    private static string? Content(JsonElement said)
    {
        if (said.ValueKind != JsonValueKind.Array) return RequestBody.AsText(said);
        string?[] parts = [.. said.EnumerateArray().Select(p => p.ValueKind == JsonValueKind.Object && p.TryGetProperty("text", out JsonElement text) ? RequestBody.AsText(text) : null)];
        return parts.Contains(null) ? null : string.Concat(parts);
    }

    /// <summary>Ours: a client that keeps a reply's finish_reason with the message tells a base model whether its text had ended.</summary>
    private static bool? Ended(JsonElement message) =>
        message.TryGetProperty("finish_reason", out JsonElement reason) && RequestBody.AsText(reason) is { } text ? text == "stop" : null;

    private static List<string> StopTexts(RequestBody body)
    {
        if (body.Find("stop") is not { } value) return [];
        string?[] stops = value.ValueKind == JsonValueKind.Array ? [.. value.EnumerateArray().Select(RequestBody.AsText)] : [RequestBody.AsText(value)];
        if (stops.Length <= MostStops && stops.All(s => s is { Length: > 0 and <= LongestStop })) return [.. stops.OfType<string>()];
        body.Add("stop", $"stop must be a text or a list of up to {MostStops} texts, each of 1 to {LongestStop} characters");
        return [];
    }
}
