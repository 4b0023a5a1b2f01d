using System.IO.Compression;
using System.Text.Json;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Documents;
using NopeGpt.Tests;
using Xunit.Abstractions;
using Record = NopeGpt.Data.Documents.Record;

namespace NopeGpt.Data.Tests.Chat;

public sealed class ConversationReaderTests(ITestOutputHelper output)
{
    public static TheoryData<string, string> Forms => new()
    {
        { """{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}""", "user:Q|assistant:A" },
        { """{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}], "prompt": "X", "chosen": [{"role": "assistant", "content": "B"}], "rejected": []}""", "user:Q|assistant:A" },
        { """{"messages": "[{\"role\": \"user\", \"content\": \"Q\"}, {\"role\": \"assistant\", \"content\": \"A\"}]"}""", "user:Q|assistant:A" },
        { """[{"role": "developer", "content": "S"}, {"role": "tool", "content": " T "}, {"role": "function", "content": ""}]""", "system:S|tool: T |function:" },
        { """{"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}, {"type": "text", "text": "R"}]}]}""", "user:QR" },
        { """{"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}, {"from": "observation", "value": "O"}]}""", "user:Q|assistant:A|tool:O" },
        { """{"system": "S", "conversations": [{"from": "human", "value": "Q"}, {"from": "function_call", "value": "{}"}]}""", "system:S|user:Q|assistant:+{}" },
        { """{"conversations": [{"from": "system", "value": "S"}, {"from": "human", "value": "Q"}], "chosen": {"from": "gpt", "value": "A"}, "rejected": {"from": "gpt", "value": "B"}}""", "system:S|user:Q|assistant:A" },
        { """{"instruction": "I", "input": "", "output": "O"}""", "user:I|assistant:O" },
        { """{"instruction": "I", "input": "N", "output": "O", "chosen": "C", "rejected": "R"}""", "user:I\n\nN|assistant:C" },
        { """{"instruction": "Two as JSON", "output": "[{\"name\": \"a\"}, {\"name\": \"b\"}]"}""", "user:Two as JSON|assistant:[{\"name\": \"a\"}, {\"name\": \"b\"}]" },
        { """{"instruction": "[{\"a\": 1}] as CSV, please", "input": "N", "output": "a"}""", "user:[{\"a\": 1}] as CSV, please\n\nN|assistant:a" },
        { """{"prompt": "[{\"role\": \"user\", \"content\": \"Q\"}]", "completion": "[{\"role\": \"assistant\", \"content\": \"A\"}]"}""", "user:Q|assistant:A" },
        { """{"instruction": "Human: Hi", "input": "N", "output": "O"}""", "user:Human: Hi\n\nN|assistant:O" },
        { """{"instruction": "Assistant: what is that?", "output": "O"}""", "user:Assistant: what is that?|assistant:O" },
        { """{"prompt": "Human: Q\n\nAssistant: A\n\nHuman: R\n\nAssistant:", "completion": "O"}""", "user:Q|assistant:A|user:R|assistant:O" },
        { """{"system": "S", "instruction": "I", "input": null, "output": "O", "history": [["Q", "A"]]}""", "system:S|user:Q|assistant:A|user:I|assistant:O" },
        { """{"prompt": "Q", "completion": "A"}""", "user:Q|assistant:A" },
        { """{"prompt": [{"role": "user", "content": "Q"}], "completion": [{"role": "assistant", "content": "A"}]}""", "user:Q|assistant:A" },
        { """{"prompt": "\n\nHuman: Q\n\nAssistant:", "completion": " A"}""", "user:Q|assistant: A" },
        { """{"chosen": "\n\nHuman: Q\n\nAssistant: A\n\nB\n\nHuman: R\n\nAssistant: C", "rejected": "\n\nHuman: Q\n\nAssistant: D"}""", "user:Q|assistant:A\n\nB|user:R|assistant:C" },
        { """{"messages": [{"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"x": [1, 2.5, "ü", null, true]}}}, {"function": {"name": "g", "arguments": "{}"}}]}]}""", "assistant:+{\"name\": \"f\", \"arguments\": {\"x\":[1,2.5,\"ü\",null,true]}}+{\"name\": \"g\", \"arguments\": {}}" },
    };

    [Theory]
    [MemberData(nameof(Forms))]
    public void Conversations_are_read_from_every_public_form(string json, string expected)
    {
        Assert.True(new ConversationReader().TryRead(Row(json), out Conversation? conversation, out RecordProblem? problem), problem?.ToString());
        Assert.Equal(expected, Shown(conversation.Messages));
    }

    public static TheoryData<string, string, string, string> Pairs => new()
    {
        { """{"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"}""", "user:Q", "assistant:A", "assistant:B" },
        { """{"chosen": "\n\nHuman: Q\n\nAssistant: A\n\nHuman: R\n\nAssistant: C", "rejected": "\n\nHuman: Q\n\nAssistant: B"}""", "user:Q", "assistant:A|user:R|assistant:C", "assistant:B" },
        { """{"prompt": "Q", "chosen": [{"content": "Q", "role": "user"}, {"content": "A", "role": "assistant"}], "rejected": [{"content": "Q", "role": "user"}, {"content": "B", "role": "assistant"}], "messages": [{"content": "Q", "role": "user"}, {"content": "A", "role": "assistant"}], "score_chosen": 8.0}""", "user:Q", "assistant:A", "assistant:B" },
        { """{"prompt": "Human: Q", "chosen": "Assistant: A", "rejected": "B"}""", "user:Human: Q", "assistant:Assistant: A", "assistant:B" },
        { """{"prompt": "\n\nHuman: Q\n\nAssistant:", "chosen": "A", "rejected": "B"}""", "user:Q", "assistant:A", "assistant:B" },
        { """{"prompt": "\n\nHuman: Q\n\nAssistant:", "chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"}""", "user:Q", "assistant:A", "assistant:B" },
        { """{"instruction": "I", "chosen": "[{\"a\": 1}]", "rejected": "[{\"a\": 2}]"}""", "user:I", "assistant:[{\"a\": 1}]", "assistant:[{\"a\": 2}]" },
        { """{"prompt": "Q", "chosen": "A", "rejected": "Human: B"}""", "user:Q", "assistant:A", "assistant:Human: B" },
        { """{"prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}], "chosen": [{"role": "assistant", "content": "A"}], "rejected": [{"role": "assistant", "content": "B"}]}""", "system:S|user:Q", "assistant:A", "assistant:B" },
        { """{"instruction": "I", "input": "N", "output": "O", "rejected": "B", "chosen": "A"}""", "user:I\n\nN", "assistant:A", "assistant:B" },
        { """{"conversations": [{"from": "human", "value": "Q"}], "chosen": {"from": "gpt", "value": "A"}, "rejected": {"from": "gpt", "value": "B"}}""", "user:Q", "assistant:A", "assistant:B" },
    };

    [Theory]
    [MemberData(nameof(Pairs))]
    public void Pairs_are_read_from_every_public_form(string json, string prompt, string chosen, string rejected)
    {
        Assert.True(new ConversationReader().TryReadPair(Row(json), out PreferencePair? pair, out RecordProblem? problem), problem?.ToString());
        Assert.Equal((prompt, chosen, rejected), (Shown(pair.Prompt), Shown(pair.Chosen), Shown(pair.Rejected)));
    }

    [Fact]
    public void Half_a_character_in_a_list_written_as_text_is_no_exception()
    {
        Record record = new(["instruction", "output"], [FieldValue.Of("I"), FieldValue.Of("[{\"a\": \"\ud800\"}]")], "a file.jsonl", 7);
        Assert.True(new ConversationReader().TryRead(record, out Conversation? conversation, out _));
        Assert.Equal("[{\"a\": \"\ud800\"}]", conversation.Messages[1].Content);
        Assert.False(new ConversationReader().TryRead(new(["messages"], [FieldValue.Of("[{\"role\": \"\ud800\"}]")], "a file.jsonl", 7), out _, out RecordProblem? problem));
        Assert.Equal(DropReason.BadRecord, problem.Reason);
    }

    [Fact]
    public void Alpacas_prompts_are_those_with_and_without_input()
    {
        ConversationReader reader = new(new() { AlpacaPrompt = AlpacaPrompt.Template });
        Assert.True(reader.TryRead(Row("""{"instruction": "I", "input": "N", "output": "O"}"""), out Conversation? with, out _));
        Assert.True(reader.TryRead(Row("""{"instruction": "I", "input": "", "output": "O"}"""), out Conversation? without, out _));
        Assert.EndsWith("\n\n### Instruction:\nI\n\n### Input:\nN\n\n### Response:", with.Messages[0].Content, StringComparison.Ordinal);
        Assert.EndsWith("\n\n### Instruction:\nI\n\n### Response:", without.Messages[0].Content, StringComparison.Ordinal);
        Assert.Contains("paired with an input", with.Messages[0].Content, StringComparison.Ordinal);
        Assert.DoesNotContain("paired with an input", without.Messages[0].Content, StringComparison.Ordinal);
    }

    [Fact]
    public void Columns_are_those_that_are_mapped()
    {
        ConversationReader reader = new(new() { Columns = new() { System = "rules", Prompt = "ask", Completion = "say" } });
        Assert.True(reader.TryRead(Row("""{"rules": "S", "ask": "Q", "say": "A", "messages": []}"""), out Conversation? conversation, out _));
        Assert.Equal("system:S|user:Q|assistant:A", Shown(conversation.Messages));
        Assert.False(reader.TryRead(Row("""{"ask": "Q"}"""), out _, out RecordProblem? problem));
        Assert.Equal("a file.jsonl, row 7: field say is missing among ask; add it, or map the columns as they are in this data set.", problem.ToString());
    }

    [Theory]
    [InlineData("<tool_call>[{\"name\": \"f\"}]</tool_call>", "assistant:+[{\"name\": \"f\"}]")]
    [InlineData("<tool_call>a</tool_call>\n<tool_call>b</tool_call>", "assistant:+a+b")]
    [InlineData("I call <tool_call>a</tool_call>", "assistant:I call <tool_call>a</tool_call>")]
    [InlineData("<tool_call>a", "assistant:<tool_call>a")]
    public void Marked_calls_are_calls_only_where_that_is_asked_for_and_nothing_else_is_said(string content, string expected)
    {
        Record record = Row($$"""{"messages": [{"role": "user", "content": "<tool_call>u</tool_call>"}, {"role": "assistant", "content": {{JsonSerializer.Serialize(content)}}}]}""");
        Assert.True(new ConversationReader(new() { ToolCallMarkup = true }).TryRead(record, out Conversation? trusted, out _));
        Assert.Equal($"user:<tool_call>u</tool_call>|{expected}", Shown(trusted.Messages));
        Assert.True(new ConversationReader().TryRead(record, out Conversation? plain, out _));
        Assert.Equal(content, plain.Messages[1].Content);
    }

    [Theory]
    [InlineData("""{"messages": [{"role": "user", "content": "Q"}, {"role": "critic", "content": "A"}]}""", "messages[1].role", "= \"critic\" is no known role", "use one of system, user, assistant, tool, function")]
    [InlineData("""{"messages": [{"content": "Q"}]}""", "messages[0].role", "is missing among content", "add it")]
    [InlineData("""{"messages": [{"role": "user", "content": null}]}""", "messages[0].content", "is missing", "add it")]
    [InlineData("""{"messages": [{"role": "user", "content": 7}]}""", "messages[0].content", "= 7 must be a text", "map the columns")]
    [InlineData("""{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}""", "messages[0].content[0]", "must be a part", "leave out messages with images")]
    [InlineData("""{"messages": ["Q"]}""", "messages[0]", "= \"Q\" must be a message", "map the columns")]
    [InlineData("""{"messages": {"role": "user"}}""", "messages", "must be a list of messages", "map the columns")]
    [InlineData("""{"messages": "[{\"role\":"}""", "messages", "is no whole JSON", "map the columns")]
    [InlineData("""{"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]}""", "messages[0].tool_calls[0].function.name", "is missing", "add it")]
    [InlineData("""{"instruction": ["I"], "output": "O"}""", "instruction[0]", "= \"I\" must be a message", "map the columns")]
    [InlineData("""{"instruction": "I", "output": "O", "history": [["Q"]]}""", "history[0]", "must be a pair", "map the columns")]
    [InlineData("""{"chosen": "no transcript", "rejected": "x"}""", "chosen", "must be a transcript that begins with Human: or Assistant:", "map the columns")]
    [InlineData("""{"text": "T"}""", "", "has the columns \"text\"; none of them is known to hold conversations", "map the columns")]
    public void A_wrong_shape_names_file_row_field_and_cure(string json, string field, string reason, string cure)
    {
        Assert.False(new ConversationReader().TryRead(Row(json), out Conversation? conversation, out RecordProblem? problem));
        Assert.Null(conversation);
        Assert.Equal((field, DropReason.BadRecord, "a file.jsonl", 7L), (problem.Field, problem.Reason, problem.File, problem.Row));
        Assert.Contains(reason, problem.Problem, StringComparison.Ordinal);
        Assert.Contains(cure, problem.Cure, StringComparison.Ordinal);
        Assert.StartsWith($"a file.jsonl, row 7: {(field.Length == 0 ? "the record" : $"field {field}")} ", problem.ToString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("""{"messages": []}""")]
    [InlineData("""{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]}""")]
    [InlineData("""{"instruction": "", "input": "", "output": ""}""")]
    public void A_conversation_without_any_text_is_empty(string json)
    {
        Assert.False(new ConversationReader().TryRead(Row(json), out _, out RecordProblem? problem));
        Assert.Equal(DropReason.Empty, problem.Reason);
    }

    [Theory]
    [InlineData("""{"prompt": "Q", "chosen": "A", "rejected": "A"}""", DropReason.SameReplies, "shows no preference")]
    [InlineData("""{"prompt": "Q", "chosen": "A", "rejected": ""}""", DropReason.Empty, "leave it out")]
    [InlineData("""{"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: R\n\nAssistant: B"}""", DropReason.BadRecord, "only replies to one prompt can be compared")]
    [InlineData("""{"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q"}""", DropReason.BadRecord, "no two replies to compare")]
    [InlineData("""{"prompt": "Q", "completion": "A"}""", DropReason.BadRecord, "map the columns")]
    public void What_is_no_pair_is_told_apart(string json, DropReason reason, string cure)
    {
        Assert.False(new ConversationReader().TryReadPair(Row(json), out _, out RecordProblem? problem));
        Assert.Equal(reason, problem.Reason);
        Assert.Contains(cure, problem.Cure, StringComparison.Ordinal);
    }

    [NeedsTheory(Needs.SharedData)]
    [InlineData("alpaca-1k.json", 999, 2)]
    [InlineData("identity-conversations.jsonl", 996, 2)]
    [InlineData("schema-guided-dialogue-train.jsonl.gz", 12174, 4)]
    [InlineData("hh-rlhf-harmless-base-test.jsonl.gz", 2312, 2)]
    [InlineData("instruction-preference-1k.json", 1100, 2)]
    [InlineData("preference-300.json", 300, 2)]
    public void Every_record_of_the_instruct_corpora_is_a_conversation_with_a_reply(string name, int count, int leastMessages)
    {
        ConversationReader reader = new();
        int read = 0;
        foreach (Record record in Source.Open(Needs.Data($"instruct/{name}")).Records(new ReadingReport()))
        {
            Assert.True(reader.TryRead(record, out Conversation? conversation, out RecordProblem? problem), problem?.ToString());
            Assert.True(conversation.HasReply && conversation.Messages.Count >= leastMessages, $"{record.Row}: {Shown(conversation.Messages)}");
            read++;
        }
        Assert.Equal(count, read);
    }

    [NeedsTheory(Needs.SharedData)]
    [InlineData("hh-rlhf-harmless-base-test.jsonl.gz", 2312)]
    [InlineData("instruction-preference-1k.json", 1100)]
    [InlineData("preference-300.json", 300)]
    public void Every_record_of_the_preference_corpora_is_a_pair_or_has_a_reason(string name, int count)
    {
        ConversationReader reader = new();
        int pairs = 0;
        Dictionary<DropReason, int> dropped = [];
        foreach (Record record in Source.Open(Needs.Data($"instruct/{name}")).Records(new ReadingReport()))
        {
            if (reader.TryReadPair(record, out PreferencePair? pair, out RecordProblem? problem))
            {
                pairs++;
                Assert.True(pair.Prompt.Count > 0 && pair.Chosen[0].Role == "assistant" && pair.Rejected[0].Role == "assistant" && !pair.Chosen.SequenceEqual(pair.Rejected));
                continue;
            }
            Assert.NotEqual(DropReason.BadRecord, problem.Reason);
            dropped[problem.Reason] = dropped.GetValueOrDefault(problem.Reason) + 1;
        }
        output.WriteLine($"{pairs} pairs, {string.Join(", ", dropped)}");
        Assert.Equal(count, pairs + dropped.Values.Sum());
        Assert.True(pairs > 0.95 * count, $"{pairs}");
    }

    [Fact]
    public void Mutated_records_are_conversations_or_problems_and_nothing_else()
    {
        int seed = Environment.TickCount;
        output.WriteLine($"seed {seed}");
        Random random = new(seed);
        string[] forms = [.. Forms.Concat(Pairs).Select(row => (string)row[0])];
        ConversationReader reader = new();
        int read = 0, problems = 0;
        for (int i = 0; i < 10_000; i++)
        {
            FieldValue record = JsonRecords.Value(JsonDocument.Parse(forms[random.Next(forms.Length)]).RootElement);
            if (Mutated(record, random) is not { AsRecord: { } mutated }) continue;
            bool good = random.Next(2) == 0 ? reader.TryRead(mutated, out _, out RecordProblem? problem) : reader.TryReadPair(mutated, out _, out problem);
            if (good) read++;
            else problems++;
            Assert.Equal(good, problem is null);
            Assert.True(good || (problem!.Problem.Length > 0 && problem.Cure.Length > 0));
        }
        Assert.True(read > 500 && problems > 500, $"{read} {problems}");
    }

    private static FieldValue Mutated(FieldValue value, Random random)
    {
        if (random.Next(25) == 0)
        {
            FieldValue[] others = [default, FieldValue.Of(7), FieldValue.Of(double.NaN), FieldValue.Of(true), FieldValue.Of(""), FieldValue.Of("[{"), FieldValue.Of("\ud800"), FieldValue.Of("[{\"role\": \"\ud800\"}]"), FieldValue.Of("\n\nHuman:"), FieldValue.Of([]), FieldValue.Of(new Record([], []))];
            return others[random.Next(others.Length)];
        }
        if (value.AsList is { } list) return FieldValue.Of([.. list.Where(_ => random.Next(15) > 0).Select(item => Mutated(item, random))]);
        if (value.AsRecord is not { } record) return value;
        (string Name, FieldValue Value)[] fields = [.. record.Names.Zip(record.Values).Where(_ => random.Next(15) > 0)];
        return FieldValue.Of(new Record([.. fields.Select(field => field.Name)], [.. fields.Select(field => Mutated(field.Value, random))]));
    }

    private static Record Row(string json) => JsonRecords.Record(JsonDocument.Parse(json).RootElement, "a file.jsonl", 7);

    private static string Shown(IReadOnlyList<ChatMessage> messages) => string.Join('|', messages.Select(message => $"{message.Role}:{message.Content}{string.Concat(message.ToolCalls.Select(call => $"+{call}"))}"));
}
