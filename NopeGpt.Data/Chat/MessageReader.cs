using System.Text.Encodings.Web;
using System.Text.Json;
using NopeGpt.Data.Documents;

namespace NopeGpt.Data.Chat;

/// <summary>Messages out of values: lists of {role, content} or {from, value}, and transcripts.</summary>
internal static class MessageReader
{
    private const string Human = "\n\nHuman:", Assistant = "\n\nAssistant:", CallStart = "<tool_call>", CallEnd = "</tool_call>";

    private static readonly JsonSerializerOptions _json = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>A list of messages, or the text of such a list.</summary>
    public static List<ChatMessage> List(RecordValue value, bool toolCallMarkup)
    {
        if (value.IsWrittenList) value = Written(value) ?? throw value.Wrong("begins as a list of messages and is no whole JSON");
        return [.. value.Items("a list of messages").Select(item => Message(item, toolCallMarkup))];
    }

    /// <summary>Whether a value is the text of a list of messages, and not of any other list, such as an answer in JSON.</summary>
    public static bool IsWrittenList(RecordValue value) =>
        value.IsWrittenList && Written(value)?.Value.AsList is { Count: > 0 } list && list.All(item => new RecordValue(item, "").Find("role", "from") is not null);

    /// <summary>One message: role and content, or from and value.</summary>
    public static ChatMessage Message(RecordValue value, bool toolCallMarkup)
    {
        if (!value.IsRecord) throw value.Wrong("must be a message: role and content, or from and value");
        RecordValue said = value.Find("role", "from") ?? throw value.Missing("role");
        string name = said.Text(), role = ChatRole.Of(name) ?? throw said.Wrong("is no known role", $"use one of {ChatRole.Names}");
        List<string> calls = value.Find("tool_calls") is { } list ? [.. Calls(list)] : [];
        RecordValue? content = value.Find("content", "value");
        if (content is null && calls.Count == 0) throw value.Missing("content");
        string text = content is { } found ? Content(found) : "";
        if (name.Equals("function_call", StringComparison.OrdinalIgnoreCase)) return new(role, "") { ToolCalls = [text] };
        if (calls.Count > 0) return new(role, text) { ToolCalls = calls };
        return toolCallMarkup && role == ChatRole.Assistant && Marked(text) is { Count: > 0 } marked ? new(role, "") { ToolCalls = marked } : new(role, text);
    }

    /// <summary>hh-rlhf's transcript: turns that begin with an empty line and Human: or Assistant:.</summary>
    public static List<ChatMessage> Transcript(RecordValue value)
    {
        string text = Lines(value.Text());
        List<ChatMessage> messages = [];
        int at = Turn(text, 0);
        if (at != 0) throw value.Wrong("must be a transcript that begins with Human: or Assistant:");
        while (at < text.Length)
        {
            bool reply = text.AsSpan(at).StartsWith(Assistant, StringComparison.Ordinal);
            int start = at + (reply ? Assistant : Human).Length, next = Turn(text, start);
            at = next < 0 ? text.Length : next;
            messages.Add(new(reply ? ChatRole.Assistant : ChatRole.User, text[start..at].Trim()));
        }
        return messages;
    }

    public static bool IsTranscript(RecordValue value) => value.Value.AsText is { } text && Turn(Lines(text), 0) == 0;

    /// <summary>Whether a prompt is a transcript, and not a text that begins with a speaker's name: it has hh-rlhf's empty line before it, or the reply's
    /// place at its end.</summary>
    public static bool IsOpenTranscript(RecordValue prompt) =>
        IsTranscript(prompt) && (prompt.Text()[0] is '\n' or '\r' || Lines(prompt.Text()).AsSpan().TrimEnd().EndsWith(Assistant, StringComparison.Ordinal));

    /// <summary>Whether a value is the transcript of a prompt and what follows it.</summary>
    public static bool GoesOn(RecordValue prompt, RecordValue value) =>
        IsOpenTranscript(prompt) && IsTranscript(value) && Lines(value.Text()).AsSpan().StartsWith(Lines(prompt.Text()).AsSpan().TrimEnd(), StringComparison.Ordinal);

    /// <summary>With the empty line at the beginning, which some transcripts lack.</summary>
    private static string Lines(string text) => $"\n\n{text.Replace("\r\n", "\n", StringComparison.Ordinal).TrimStart()}";

    private static int Turn(string text, int from)
    {
        int human = text.IndexOf(Human, from, StringComparison.Ordinal), assistant = text.IndexOf(Assistant, from, StringComparison.Ordinal);
        return human < 0 ? assistant : assistant < 0 ? human : Math.Min(human, assistant);
    }

    /// <summary>A text, or OpenAI's list of parts of text.</summary>
    private static string Content(RecordValue value) => !value.IsList ? value.Text() : string.Concat(value.Items("a list of parts").Select(part =>
        part.IsText ? part.Text() : part.Find("text")?.Text() ?? throw part.Wrong("must be a part {type: text, text}", "leave out messages with images and sound: the model reads text only")));

    /// <summary>OpenAI's calls, [{function: {name, arguments}}] with the arguments as JSON or as its text, each as {"name", "arguments"}.</summary>
    private static IEnumerable<string> Calls(RecordValue list)
    {
        foreach (RecordValue item in list.Items("a list of calls"))
        {
            RecordValue function = item.Find("function") ?? item;
            string name = (function.Find("name") ?? throw function.Missing("name")).Text();
            string arguments = function.Find("arguments") is not { } given ? "{}" : given.IsText ? given.Text() : given.Json();
            yield return $"{{\"name\": {JsonSerializer.Serialize(name, _json)}, \"arguments\": {arguments}}}";
        }
    }

    /// <summary>The calls of a text that is nothing else: marked calls, each on a line of its own. Empty where it is not.</summary>
    private static List<string> Marked(string content)
    {
        List<string> calls = [];
        string rest = content.Trim();
        while (rest.StartsWith(CallStart, StringComparison.Ordinal))
        {
            int end = rest.IndexOf(CallEnd, StringComparison.Ordinal);
            if (end < 0) return [];
            calls.Add(rest[CallStart.Length..end]);
            rest = rest[(end + CallEnd.Length)..];
            if (rest.Length == 0) return calls;
            if (rest[0] != '\n') return [];
            rest = rest[1..];
        }
        return [];
    }

    /// <summary>The list that a text is the JSON of, or null.</summary>
    private static RecordValue? Written(RecordValue value)
    {
        try { return value with { Value = Parsed(JsonSerializer.Deserialize<JsonElement>(value.Text())) }; }
        catch (Exception error) when (error is JsonException or InvalidOperationException or ArgumentException) { return null; /* ArgumentException: half a surrogate pair */ }
    }

    /// <summary>A value of JSON that stood in a text; numbers stay what they are for messages, which have none.</summary>
    private static FieldValue Parsed(JsonElement json) => json.ValueKind switch
    {
        JsonValueKind.String => FieldValue.Of(json.GetString()),
        JsonValueKind.Number => json.TryGetInt64(out long whole) ? FieldValue.Of(whole) : FieldValue.Of(json.GetDouble()),
        JsonValueKind.True or JsonValueKind.False => FieldValue.Of(json.GetBoolean()),
        JsonValueKind.Array => FieldValue.Of([.. json.EnumerateArray().Select(Parsed)]),
        JsonValueKind.Object => FieldValue.Of(new Record([.. json.EnumerateObject().Select(p => p.Name)], [.. json.EnumerateObject().Select(p => Parsed(p.Value))])),
        _ => default,
    };
}
