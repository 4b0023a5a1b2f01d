using System.Diagnostics.CodeAnalysis;
using NopeGpt.Data.Documents;

namespace NopeGpt.Data.Chat;

/// <summary>How an instruction and its input are put to the model.</summary>
public enum AlpacaPrompt
{
    /// <summary>The instruction, and after an empty line the input if there is one.</summary>
    Plain,

    /// <summary>Stanford Alpaca's prompts, the one with and the one without input.</summary>
    Template,
}

/// <summary>How records are read.</summary>
public sealed record ConversationOptions
{
    /// <summary>Which column plays which part; null to know it by their well-known names.</summary>
    public ColumnMapping? Columns { get; init; }

    public AlpacaPrompt AlpacaPrompt { get; init; }

    /// <summary>Whether an assistant's text that consists of &lt;tool_call>…&lt;/tool_call> is a call of tools, as in SmolTalk's apigen subset.
    /// Off, it is ordinary text; on, it is for data whose texts nobody can have forged.</summary>
    public bool ToolCallMarkup { get; init; }
}

/// <summary>Conversations and preference pairs out of records of the public forms: messages (role, content), conversations (ShareGPT's from,
/// value), instruction, input and output (Alpaca), prompt and completion, chosen and rejected as replies, as whole conversations or as
/// hh-rlhf's transcripts; a system message and Alpaca's history beside them. Safe for concurrent use.</summary>
public sealed class ConversationReader(ConversationOptions? options = null)
{
    private readonly ConversationOptions _options = options ?? new();

    public ConversationOptions Options => _options;

    /// <summary>The conversation of a record; of a preference record the one with the chosen reply.</summary>
    /// <param name="problem">where the answer is false: file, row, field, reason and cure</param>
    public bool TryRead(Record record, [NotNullWhen(true)] out Conversation? conversation, [NotNullWhen(false)] out RecordProblem? problem) =>
        Try(record, fields =>
        {
            Conversation read = new(Conversation(fields, Columns(record)));
            return !read.IsEmpty ? read : throw new RecordException("", "has no message with any text", "leave it out", DropReason.Empty);
        }, out conversation, out problem);

    /// <summary>The pair of a record.</summary>
    /// <param name="problem">where the answer is false: file, row, field, reason and cure</param>
    public bool TryReadPair(Record record, [NotNullWhen(true)] out PreferencePair? pair, [NotNullWhen(false)] out RecordProblem? problem) =>
        Try(record, fields => Pair(fields, _options.Columns ?? Guess(record, DatasetKind.Preference)), out pair, out problem);

    private static bool Try<T>(Record record, Func<RecordValue, T> read, [NotNullWhen(true)] out T? result, [NotNullWhen(false)] out RecordProblem? problem) where T : class
    {
        ArgumentNullException.ThrowIfNull(record);
        (result, problem) = (null, null);
        try
        {
            result = read(new RecordValue(FieldValue.Of(record), ""));
            return true;
        }
        catch (RecordException error)
        {
            problem = error.Problem with { File = record.File, Row = record.Row };
            return false;
        }
    }

    private ColumnMapping Columns(Record record)
    {
        if (_options.Columns is { } given) return given;
        // A preference record may hold a whole conversation as well; its reply is in chosen where it does not. Alpaca's output beside a pair is
        // either of the two replies.
        bool preference = record.Names.Any(name => name.Equals("chosen", StringComparison.OrdinalIgnoreCase)) && record.Names.Any(name => name.Equals("rejected", StringComparison.OrdinalIgnoreCase));
        if (!preference) return Guess(record, DatasetKind.Chat);
        ColumnMapping pair = Guess(record, DatasetKind.Preference);
        try { return ColumnMapping.Guess(record.Names, DatasetKind.Chat) is { Messages: not null } whole ? whole with { Chosen = pair.Chosen } : pair; }
        catch (InvalidDataException) { return pair; }
    }

    private static ColumnMapping Guess(Record record, DatasetKind kind)
    {
        try { return ColumnMapping.Guess(record.Names, kind, "the record"); }
        catch (InvalidDataException error) { throw new RecordException("", $"cannot be read: {error.Message.TrimEnd('.')}", "map the columns as they are in this data set"); }
    }

    private List<ChatMessage> Conversation(RecordValue record, ColumnMapping columns)
    {
        if (columns.Messages is { } list)
        {
            List<ChatMessage> messages = [.. SystemOf(record, columns), .. Messages(Needed(record, list))];
            return columns.Chosen is { } name && messages is not [.., { Role: ChatRole.Assistant }] && record.Find(name) is { } chosen ? [.. messages, .. Reply(chosen)] : messages;
        }
        if (columns.Completion is { } completion) return [.. Prompt(record, columns), .. Reply(Needed(record, completion))];
        if (columns.Chosen is { } better) return Continued(record, columns, Needed(record, better));
        throw new RecordException("", $"has no conversation in its columns ({columns})", "map messages, prompt and completion, or chosen and rejected");
    }

    private PreferencePair Pair(RecordValue record, ColumnMapping columns)
    {
        if (columns.Chosen is not { } better || columns.Rejected is not { } worse)
            throw new RecordException("", $"has no pair in its columns ({columns})", "map chosen and rejected");
        List<ChatMessage> chosen = Continued(record, columns, Needed(record, better)), rejected = Continued(record, columns, Needed(record, worse));
        if (chosen.SequenceEqual(rejected)) throw new RecordException(worse, $"is the same as {better}", "leave it out: it shows no preference", DropReason.SameReplies);
        int common = 0;
        while (common < chosen.Count && common < rejected.Count && chosen[common] == rejected[common]) common++;
        if (common == chosen.Count || common == rejected.Count)
            throw new RecordException(worse, $"and {better} are one conversation that goes on in one of them", "leave it out: there are no two replies to compare");
        if (common == 0 || chosen[common].Role != ChatRole.Assistant || rejected[common].Role != ChatRole.Assistant)
            throw new RecordException(worse, $"and {better} have different prompts: they differ from message {common} on, and not as two replies to the same", "leave it out: only replies to one prompt can be compared");
        PreferencePair pair = new(chosen[..common], chosen[common..], rejected[common..]);
        foreach ((string name, IReadOnlyList<ChatMessage> reply) in new[] { (better, pair.Chosen), (worse, pair.Rejected) })
            if (reply.All(message => message.IsEmpty)) throw new RecordException(name, "has an empty reply", "leave it out", DropReason.Empty);
        return pair;
    }

    /// <summary>The whole conversation that a value ends: it is in the value already, or the value is the reply to the prompt beside it.</summary>
    private List<ChatMessage> Continued(RecordValue record, ColumnMapping columns, RecordValue value)
    {
        RecordValue? prompt = columns.Prompt is { } name ? record.Find(name) : columns.Messages is { } list ? record.Find(list) : null;
        bool prompted = prompt is not null;
        // A reply to an ordinary prompt may begin with "Human:" without being a transcript.
        bool transcript = prompted ? MessageReader.GoesOn(prompt!.Value, value) : value.IsText && !value.IsWrittenList;
        if (transcript) return [.. SystemOf(record, columns), .. MessageReader.Transcript(value)];
        List<ChatMessage> messages = Reply(value);
        if (!prompted || messages is [{ Role: not ChatRole.Assistant }, ..]) return [.. SystemOf(record, columns), .. messages];
        return [.. Prompt(record, columns), .. messages];
    }

    /// <summary>The messages before the reply.</summary>
    private List<ChatMessage> Prompt(RecordValue record, ColumnMapping columns)
    {
        if (columns.Prompt is not { } name) return [.. SystemOf(record, columns), .. Messages(Needed(record, columns.Messages!))];
        RecordValue prompt = Needed(record, name);
        if (prompt.IsList || MessageReader.IsWrittenList(prompt)) return [.. SystemOf(record, columns), .. Messages(prompt)];
        if (MessageReader.IsOpenTranscript(prompt))
        {
            List<ChatMessage> turns = MessageReader.Transcript(prompt);
            // The empty turn at its end is the place of the reply.
            if (turns[^1] is { Role: ChatRole.Assistant, IsEmpty: true }) turns.RemoveAt(turns.Count - 1);
            return [.. SystemOf(record, columns), .. turns];
        }
        string input = columns.Input is { } more && record.Find(more) is { } found ? found.Text() : "";
        bool template = _options.AlpacaPrompt == AlpacaPrompt.Template;
        return [.. SystemOf(record, columns), .. History(record), new(ChatRole.User, template ? Template(prompt.Text(), input) : Plain(prompt.Text(), input))];
    }

    private List<ChatMessage> Reply(RecordValue value) =>
        value.IsRecord ? [MessageReader.Message(value, _options.ToolCallMarkup)]
        : value.IsList || MessageReader.IsWrittenList(value) ? Messages(value)
        : [new(ChatRole.Assistant, value.Text())];

    private List<ChatMessage> Messages(RecordValue value) => MessageReader.List(value, _options.ToolCallMarkup);

    private static string Plain(string instruction, string input) => input.Length == 0 ? instruction : instruction.Length == 0 ? input : $"{instruction}\n\n{input}";

    /// <summary>The two prompts that Alpaca was trained with (tatsu-lab/stanford_alpaca, train.py).</summary>
    private static string Template(string instruction, string input) => input.Length == 0
        ? $"Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:"
        : $"Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:";

    /// <summary>Earlier rounds of an Alpaca record: [[question, answer], …].</summary>
    private static IEnumerable<ChatMessage> History(RecordValue record)
    {
        if (record.Find("history") is not { IsList: true } history) yield break;
        foreach (RecordValue round in history.Items("a list of rounds"))
        {
            string[] texts = [.. round.Items("a pair of question and answer").Select(text => text.Text())];
            if (texts.Length != 2) throw round.Wrong("must be a pair of question and answer");
            yield return new(ChatRole.User, texts[0]);
            yield return new(ChatRole.Assistant, texts[1]);
        }
    }

    private static List<ChatMessage> SystemOf(RecordValue record, ColumnMapping columns) =>
        columns.System is { } name && record.Find(name) is { } system && system.Text() is { Length: > 0 } text ? [new(ChatRole.System, text)] : [];

    private static RecordValue Needed(RecordValue record, string name) => record.Find(name) ?? throw record.Missing(name);
}
