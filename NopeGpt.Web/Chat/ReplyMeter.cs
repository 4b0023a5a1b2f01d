using System.Diagnostics;
using System.Text.Json;

namespace NopeGpt.Web.Chat;

/// <summary>Turns the chunks of a streamed reply (OpenAI's format and our `nopegpt` field) into pieces, and measures them.</summary>
internal sealed class ReplyMeter
{
    private readonly Stopwatch _sinceFirst = new();
    private int _tokens;

    /// <summary>True when the reply has said why it ended.</summary>
    public bool IsFinished { get; private set; }

    /// <summary>The piece that a chunk holds; null where it holds none.</summary>
    /// <exception cref="InferenceException">The chunk is an error, or not JSON.</exception>
    public ChatPiece? Read(string data)
    {
        if (ErrorIn(data) is { } error) throw new InferenceException(error);
        using JsonDocument document = Parse(data);
        JsonElement root = document.RootElement;
        JsonElement choice = root.TryGetProperty("choices", out JsonElement choices) && choices.GetArrayLength() > 0 ? choices[0] : default;
        string text = "";
        string? finish = null;
        if (choice.ValueKind == JsonValueKind.Object)
        {
            if (choice.TryGetProperty("delta", out JsonElement delta) && delta.TryGetProperty("content", out JsonElement content)) text = content.GetString() ?? "";
            if (choice.TryGetProperty("finish_reason", out JsonElement reason)) finish = reason.GetString();
        }
        if (text.Length > 0)
        {
            _tokens++;
            _sinceFirst.Start();
        }
        (double speed, ulong seed) = (_sinceFirst.Elapsed.TotalSeconds is > 0 and var seconds && _tokens > 1 ? (_tokens - 1) / seconds : 0, 0);
        if (root.TryGetProperty("usage", out JsonElement usage) && usage.ValueKind == JsonValueKind.Object) _tokens = usage.GetProperty("completion_tokens").GetInt32();
        if (root.TryGetProperty("nopegpt", out JsonElement ours) && ours.ValueKind == JsonValueKind.Object)
        {
            if (ours.TryGetProperty("tokens", out JsonElement tokens) && tokens.ValueKind == JsonValueKind.Number) _tokens = tokens.GetInt32();
            if (ours.TryGetProperty("tokens_per_second", out JsonElement measured) && measured.ValueKind == JsonValueKind.Number) speed = measured.GetDouble();
            if (ours.TryGetProperty("seed", out JsonElement used) && used.ValueKind == JsonValueKind.Number) seed = used.GetUInt64();
        }
        if (finish is not null) IsFinished = true;
        return text.Length == 0 && finish is null ? null : new ChatPiece(text, finish, _tokens, speed, seed);
    }

    /// <summary>The sentence in an error of OpenAI's format; null where the text is none.</summary>
    public static string? ErrorIn(string text)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(text);
            return document.RootElement.ValueKind == JsonValueKind.Object && document.RootElement.TryGetProperty("error", out JsonElement error)
                && error.ValueKind == JsonValueKind.Object && error.TryGetProperty("message", out JsonElement message) ? message.GetString() : null;
        }
        catch (JsonException)
        {
            return null;
        }
    }

    private static JsonDocument Parse(string data)
    {
        try { return JsonDocument.Parse(data); }
        catch (JsonException e) { throw new InferenceException("The model process sent something that is not JSON.", e); }
    }
}
