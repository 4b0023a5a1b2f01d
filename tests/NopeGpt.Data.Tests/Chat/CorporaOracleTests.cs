using System.IO.Compression;
using System.Text.Json;
using System.Text.RegularExpressions;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;
using NopeGpt.Tests;
using Record = NopeGpt.Data.Documents.Record;

namespace NopeGpt.Data.Tests.Chat;

/// <summary>Every record of the instruct corpora against a second reading, by the platform's JSON and what each set's description says.</summary>
public sealed partial class CorporaOracleTests
{
    private static readonly Dictionary<string, (Func<JsonElement, string[]> Conversation, Func<JsonElement, (string[] Chosen, string[] Rejected)>? Pair)> _sets = new()
    {
        ["alpaca-1k.json"] = (r => [Instruction(r), $"assistant:{Text(r, "output")}"], null),
        ["identity-conversations.jsonl"] = (r => List(r, "role", "content"), null),
        ["schema-guided-dialogue-train.jsonl.gz"] = (r => List(r.GetProperty("messages"), "role", "content"), null),
        ["hh-rlhf-harmless-base-test.jsonl.gz"] = (r => Transcript(Text(r, "chosen")), r => (Transcript(Text(r, "chosen")), Transcript(Text(r, "rejected")))),
        ["instruction-preference-1k.json"] = (
            r => [Instruction(r), $"assistant:{Text(r, "chosen")}"],
            r => ([Instruction(r), $"assistant:{Text(r, "chosen")}"], [Instruction(r), $"assistant:{Text(r, "rejected")}"])),
        ["preference-300.json"] = (
            r => [.. List(r.GetProperty("conversations"), "from", "value"), Message(r.GetProperty("chosen"), "from", "value")],
            r => ([.. List(r.GetProperty("conversations"), "from", "value"), Message(r.GetProperty("chosen"), "from", "value")],
                [.. List(r.GetProperty("conversations"), "from", "value"), Message(r.GetProperty("rejected"), "from", "value")])),
    };

    public static TheoryData<string> Names => [.. _sets.Keys];

    [NeedsTheory(Needs.SharedData)]
    [MemberData(nameof(Names))]
    public void Conversations_are_what_the_records_say(string name)
    {
        ConversationReader reader = new();
        foreach ((Record record, JsonElement json) in Rows(name))
        {
            Assert.True(reader.TryRead(record, out Conversation? conversation, out RecordProblem? problem), problem?.ToString());
            Assert.Equal(_sets[name].Conversation(json), Shown(conversation.Messages));
        }
    }

    [NeedsTheory(Needs.SharedData)]
    [MemberData(nameof(Names))]
    public void Pairs_are_what_the_records_say(string name)
    {
        ConversationReader reader = new();
        int pairs = 0;
        foreach ((Record record, JsonElement json) in Rows(name))
        {
            bool read = reader.TryReadPair(record, out PreferencePair? pair, out RecordProblem? problem);
            if (_sets[name].Pair is not { } oracle)
            {
                Assert.False(read);
                continue;
            }
            (string[] chosen, string[] rejected) = oracle(json);
            int common = chosen.Zip(rejected).TakeWhile(both => both.First == both.Second).Count();
            string? reason = chosen.SequenceEqual(rejected) ? nameof(DropReason.SameReplies)
                : common == chosen.Length || common == rejected.Length ? nameof(DropReason.BadRecord)
                : chosen[common..].All(Empty) || rejected[common..].All(Empty) ? nameof(DropReason.Empty)
                : null;
            Assert.Equal(reason, problem?.Reason.ToString());
            if (!read) continue;
            pairs++;
            Assert.Equal(chosen, Shown([.. pair!.Prompt, .. pair.Chosen]));
            Assert.Equal(rejected, Shown([.. pair.Prompt, .. pair.Rejected]));
            Assert.Equal(common, pair.Prompt.Count);
            Assert.Equal(("assistant", "assistant"), (pair.Chosen[0].Role, pair.Rejected[0].Role));
        }
        if (_sets[name].Pair is not null) Assert.True(pairs > 250, $"{pairs}");
    }

    private static List<(Record, JsonElement)> Rows(string name)
    {
        string path = Needs.Data($"instruct/{name}");
        using Stream file = File.OpenRead(path), plain = path.EndsWith(".gz", StringComparison.Ordinal) ? new GZipStream(file, CompressionMode.Decompress) : file;
        using StreamReader reader = new(plain);
        string text = reader.ReadToEnd();
        List<JsonElement> expected = name.Contains("jsonl", StringComparison.Ordinal)
            ? [.. text.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => JsonSerializer.Deserialize<JsonElement>(line))]
            : [.. JsonSerializer.Deserialize<JsonElement>(text).EnumerateArray()];
        List<Record> records = [.. Source.Open(path).Records(new ReadingReport())];
        Assert.Equal(expected.Count, records.Count);
        return [.. records.Zip(expected)];
    }

    private static bool Empty(string message) => message.EndsWith(':') && message.IndexOf(':', StringComparison.Ordinal) == message.Length - 1;

    private static string Instruction(JsonElement record) => Text(record, "input") is { Length: > 0 } input ? $"user:{Text(record, "instruction")}\n\n{input}" : $"user:{Text(record, "instruction")}";

    private static string[] List(JsonElement list, string role, string text) => [.. list.EnumerateArray().Select(message => Message(message, role, text))];

    private static string Message(JsonElement message, string role, string text) => $"{Role(Text(message, role))}:{Text(message, text)}";

    private static string Role(string name) => name switch { "human" => "user", "gpt" => "assistant", _ => name };

    private static string[] Transcript(string text) => [.. Turns().Matches(text).Select(turn => $"{(turn.Groups[1].Value == "Human" ? "user" : "assistant")}:{turn.Groups[2].Value.Trim()}")];

    [GeneratedRegex(@"\n\n(Human|Assistant):(.*?)(?=\n\n(?:Human|Assistant):|\z)", RegexOptions.Singleline)]
    private static partial Regex Turns();

    private static string Text(JsonElement record, string name) => record.GetProperty(name).GetString()!;

    private static string[] Shown(IReadOnlyList<ChatMessage> messages) => [.. messages.Select(message => $"{message.Role}:{message.Content}")];
}
