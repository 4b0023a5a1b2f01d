using NopeGpt.Data;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs;

namespace NopeGpt.Web.Components.Parts.Datasets;

/// <summary>A part of a document: long ones are looked at piece by piece.</summary>
/// <param name="Part">Which part, from 0.</param>
/// <param name="Parts">How many it has.</param>
/// <param name="Length">Tokens of the whole document.</param>
/// <param name="First">Where the part's tokens begin in it.</param>
/// <param name="Text">What the part's tokens say, without the special ones.</param>
internal sealed record DocumentPart(int Part, int Parts, int Length, int First, string Text, IReadOnlyList<ShownToken> Tokens);

/// <summary>A message of a conversation.</summary>
/// <param name="IsReply">Whether a model learns to write it when it learns the replies.</param>
internal sealed record ChatTurn(string Role, string Text, bool IsReply);

/// <summary>A row of a training batch.</summary>
/// <param name="Row">Its number in the order of training, from 0; row of a batch is Row modulo the batch size.</param>
/// <param name="Rows">Rows of an epoch.</param>
/// <param name="Length">Tokens of the row, padding included.</param>
/// <param name="Filled">Those that are no padding.</param>
/// <param name="Learned">Those that are to be predicted.</param>
/// <param name="FillRate">Of all rows of packed conversations, the part that is no padding.</param>
/// <param name="Documents">What the row is made of.</param>
/// <param name="Sequences">How many sequences it has.</param>
/// <param name="HeldOut">Samples held out; none where the data set is too small for as many as asked for.</param>
internal sealed record LossRow(long Row, long Rows, int Length, int Filled, int Learned, double? FillRate, IReadOnlyList<long> Documents, int Sequences, int HeldOut, IReadOnlyList<ShownToken> Tokens);

/// <summary>Reads single rows of a prepared data set for a page. Not safe for concurrent use.</summary>
internal sealed class DatasetReader : IDisposable
{
    /// <summary>Tokens of a part of a document.</summary>
    public const int PartTokens = 1024;

    // Conversations are shown whole, up to this.
    private const int MostChatTokens = 32_768;

    private readonly TokenFile _tokens;
    private readonly ChatFile? _chat;
    private (LossOptions Options, BatchSource? Text, ChatBatchSource? Chat, int HeldOut)? _source;

    private DatasetReader(TokenFile tokens, ChatFile? chat, Tokenizer tokenizer) => (_tokens, _chat, Tokenizer) = (tokens, chat, tokenizer);

    public Tokenizer Tokenizer { get; }

    /// <summary>Documents, or conversations.</summary>
    public long Count => _tokens.DocumentCount;

    public bool IsChat => _chat is not null;

    /// <exception cref="InvalidDataException">It is damaged; one sentence.</exception>
    /// <exception cref="IOException">A file of it is missing.</exception>
    public static DatasetReader Open(Store store, string name)
    {
        string path = store.DatasetTokens(name);
        ChatFile? chat = File.Exists(Path.ChangeExtension(path, ".messages")) ? ChatFile.Open(path) : null;
        TokenFile tokens = chat?.Tokens ?? TokenFile.Open(path);
        try
        {
            string folder = store.DatasetFolder(name);
            return new DatasetReader(tokens, chat, tokens.CheckTokenizer(Tokenizer.Load(folder, store.TokenizerPlaces), folder));
        }
        catch
        {
            tokens.Dispose();
            chat?.Dispose();
            throw;
        }
    }

    /// <summary>A part of a document. No character is cut: a part begins where one does.</summary>
    public DocumentPart Part(long row, int part)
    {
        (long start, int length) = _tokens.Document(row);
        int parts = Math.Max(1, (length + PartTokens - 1) / PartTokens);
        part = Math.Clamp(part, 0, parts - 1);
        int first = Boundary(start, length, part), end = part == parts - 1 ? length : Boundary(start, length, part + 1);
        int[] ids = new int[end - first];
        _tokens.Read(start + first, ids);
        int? before = null;
        if (first > 0)
        {
            int[] one = new int[1];
            _tokens.Read(start + first - 1, one);
            before = one[0];
        }
        HashSet<int> specials = [.. Tokenizer.SpecialTokens.Values];
        return new DocumentPart(part, parts, length, first, Decode(ids.Where(id => !specials.Contains(id)), before), ShownToken.Of(ids, Tokenizer, before));
    }

    /// <summary>The messages of a conversation.</summary>
    public IReadOnlyList<ChatTurn> Turns(long row)
    {
        EncodedConversation conversation = _chat![row];
        int shown = Math.Min(conversation.Tokens.Length, MostChatTokens);
        List<ChatTurn> turns = [];
        for (int i = 0; i < conversation.Messages.Length && conversation.Messages[i].Start < shown; i++)
        {
            MessageSpan message = conversation.Messages[i];
            int end = Math.Min(shown, i + 1 < conversation.Messages.Length ? conversation.Messages[i + 1].Start : conversation.Tokens.Length);
            turns.Add(Turn(conversation.Tokens.AsSpan(message.Start..end), message.Reply));
        }
        return turns;
    }

    /// <summary>Whether a conversation is longer than is shown of it.</summary>
    public bool IsCut(long row) => _tokens.Document(row).Length > MostChatTokens;

    /// <summary>A row of a real training batch.</summary>
    /// <param name="row">In the order of training, from 0; it goes on into further epochs.</param>
    /// <exception cref="ArgumentException">The options do not fit the data set; the message says why.</exception>
    public LossRow Loss(LossOptions options, long row)
    {
        if (_source is not var (known, _, _, _) || known with { Padding = options.Padding } != options) _source = Source(options);
        (_, BatchSource? text, ChatBatchSource? chat, int heldOut) = _source.Value;
        (long index, int at) = (row / options.BatchSize, (int)(row % options.BatchSize));
        Batch batch = text?.Training(index) ?? chat!.Training(index);
        Range whole = (at * batch.Length)..((at + 1) * batch.Length);
        ReadOnlySpan<int> sequences = batch.Sequences is null ? [] : batch.Sequences.AsSpan(whole);
        int filled = batch.Sequences is null ? batch.Length : batch.Length - sequences.Count(Batch.Padding), learned = 0;
        foreach (long target in batch.Targets.AsSpan(whole)) learned += target >= 0 ? 1 : 0;
        int count = 1;
        foreach (int sequence in sequences) count = Math.Max(count, sequence + 1);
        IReadOnlyList<ShownToken> tokens = ShownToken.Of(TokenPreview.Row(batch, at, Tokenizer, options.Padding), Tokenizer);
        return new LossRow(row, text?.TrainingWindows ?? chat!.TrainingRows, batch.Length, filled, learned, chat?.FillRate, batch.Documents?[at] ?? [text!.DocumentIds(batch)[at]], count, heldOut, tokens);
    }

    public void Dispose()
    {
        _chat?.Dispose();
        _tokens.Dispose();
    }

    /// <summary>With none held out where the data set is too small for as many as asked for, as on the command line.</summary>
    private (LossOptions Options, BatchSource? Text, ChatBatchSource? Chat, int HeldOut) Source(LossOptions options)
    {
        try { return Source(options, options.NumEvalSamples); }
        catch (ArgumentException) when (options.NumEvalSamples > 0) { return Source(options, 0); }
    }

    private (LossOptions Options, BatchSource? Text, ChatBatchSource? Chat, int HeldOut) Source(LossOptions options, int heldOut)
    {
        if (_chat is { } chat)
        {
            return (options, null, new ChatBatchSource(chat, ChatFormat.For(Tokenizer).PaddingId, new ChatBatchOptions
            {
                BatchSize = options.BatchSize, Seed = options.Seed, HoldoutSamples = heldOut, Packing = options.Packed ?? false,
                Sample = new ChatSampleOptions { MaxTokens = options.TokensPerSample, Labels = options.Labels },
            }), heldOut);
        }
        return (options, new BatchSource(_tokens, new BatchOptions
        {
            BatchSize = options.BatchSize, TokensPerSample = options.TokensPerSample, Seed = options.Seed, HoldoutSamples = heldOut, Packed = options.Packed ?? true, PaddingId = Tokenizer.EndOfTextId,
        }), null, heldOut);
    }

    /// <summary>Where a part begins: at its share, or at the next token that begins a character.</summary>
    private int Boundary(long start, int length, int part)
    {
        int at = part * PartTokens;
        if (part == 0 || at >= length) return Math.Min(at, length);
        // The bytes of a character are in at most four tokens.
        int[] ids = new int[Math.Min(4, length - at)];
        _tokens.Read(start + at, ids);
        int goesOn = 0;
        while (goesOn < ids.Length && Tokenizer.Bytes(ids[goesOn]) is [>= 0x80 and <= 0xBF, ..]) goesOn++;
        return goesOn == ids.Length ? at : at + goesOn;
    }

    private ChatTurn Turn(ReadOnlySpan<int> ids, bool isReply)
    {
        // Marker, role, line end, text, line end, marker, line end: see ChatFormat.
        HashSet<int> markers = [.. ChatFormat.Markers.Take(2).Select(marker => Tokenizer.SpecialTokens.GetValueOrDefault(marker, -1))];
        List<int> text = [];
        foreach (int id in ids[1..])
        {
            if (markers.Contains(id)) break;
            text.Add(id);
        }
        string all = Decode(text, ids[0]);
        int line = all.IndexOf('\n', StringComparison.Ordinal);
        string role = line < 0 ? all : all[..line], content = line < 0 ? "" : all[(line + 1)..];
        return new ChatTurn(role, content.EndsWith('\n') ? content[..^1] : content, isReply);
    }

    private string Decode(IEnumerable<int> ids, int? before)
    {
        TextDecoder decoder = new(Tokenizer, before);
        return string.Concat(ids.Select(decoder.Push)) + decoder.Flush();
    }
}
