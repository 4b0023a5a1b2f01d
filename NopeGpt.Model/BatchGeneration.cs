using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model;

/// <summary>Why a text ended.</summary>
public enum FinishReason
{
    /// <summary>A stop token came, or the caller ended it.</summary>
    Stop,

    /// <summary>It has as many tokens as were asked for.</summary>
    Length,
}

/// <summary>A text to write.</summary>
/// <param name="Prompt">Ids to continue, at least one.</param>
/// <param name="Seed">The same seed gives the same text, whatever is written beside it.</param>
/// <param name="MaxTokens">Tokens at most, at least 1.</param>
/// <param name="StopTokens">Ids that end the text; they are not part of it.</param>
/// <param name="Alternatives">How many of the likeliest tokens come with each.</param>
public sealed record TextRequest(IReadOnlyList<int> Prompt, SamplingOptions Sampling, ulong Seed, int MaxTokens, IReadOnlyList<int> StopTokens, int Alternatives = 0);

/// <summary>A text of a <see cref="BatchGeneration"/>, as far as it is written.</summary>
public sealed class GeneratedText
{
    private readonly List<SampledToken> _tokens = [];
    private readonly List<int> _ids = [];
    private readonly HashSet<int> _stops;

    internal GeneratedText(TextRequest request) => (Request, Sampler, _stops) = (request, new(request.Sampling, request.Seed), [.. request.StopTokens]);

    public TextRequest Request { get; }

    /// <summary>The tokens after the prompt, each with its probability among those that could be drawn.</summary>
    public IReadOnlyList<SampledToken> Tokens => _tokens;

    /// <summary>Null while it is being written.</summary>
    public FinishReason? Finish { get; internal set; }

    internal Sampler Sampler { get; }

    internal IReadOnlyList<int> Ids => _ids;

    internal TextPiece Add(SampledToken token)
    {
        if (_stops.Contains(token.Id)) return new(this, null, Finish = FinishReason.Stop);
        _tokens.Add(token);
        _ids.Add(token.Id);
        if (_ids.Count == Request.MaxTokens) Finish = FinishReason.Length;
        return new(this, token, Finish);
    }
}

/// <summary>What a step has added to a text.</summary>
/// <param name="Token">Null where the text has ended without one.</param>
/// <param name="Finish">Set where the text has ended.</param>
public readonly record struct TextPiece(GeneratedText Text, SampledToken? Token, FinishReason? Finish);

/// <summary>Continues texts of different lengths side by side, a token of each in a step. Each gets what it would get alone; one that ends
/// leaves at once, and another can come in at any time. Not for two threads at once.</summary>
public sealed class BatchGeneration : IDisposable
{
    /// <summary>Columns of the prompts that are read in one step: long prompts hold up neither the texts that run nor a caller who wants to stop.</summary>
    private const int PromptChunk = 256;

    private readonly Decoder _model;
    private readonly int _contextLength;
    private readonly int _vocabularySize;
    private readonly List<GeneratedText> _waiting = [];
    private Rows? _reading;
    private Rows? _running;

    /// <param name="contextLength">Tokens of its text that the model sees at once; with more, the oldest are dropped.</param>
    /// <param name="vocabularySize">Ids from 0 to below this are drawn: the tokenizer's size where it is less than the model's.</param>
    public BatchGeneration(Decoder model, int contextLength, int? vocabularySize = null)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(contextLength, 1);
        (_model, _contextLength, _vocabularySize) = (model, contextLength, vocabularySize ?? model.AdaptedConfig.VocabularySize);
        ArgumentOutOfRangeException.ThrowIfLessThan(_vocabularySize, 1, nameof(vocabularySize));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(_vocabularySize, model.AdaptedConfig.VocabularySize, nameof(vocabularySize));
    }

    /// <summary>Every text has ended.</summary>
    public bool Done => _waiting.Count == 0 && _reading is null && _running is null;

    /// <summary>Writes all of these. The parameters are those of the constructor.</summary>
    /// <returns>The texts in the order of the requests.</returns>
    /// <exception cref="ArgumentException">A request cannot be fulfilled.</exception>
    /// <exception cref="InvalidDataException">The model's output is not a number.</exception>
    public static IReadOnlyList<GeneratedText> Run(Decoder model, IEnumerable<TextRequest> requests, int contextLength, int? vocabularySize = null, CancellationToken cancel = default)
    {
        using BatchGeneration batch = new(model, contextLength, vocabularySize);
        GeneratedText[] texts = [.. requests.Select(batch.Add)];
        while (!batch.Done)
        {
            cancel.ThrowIfCancellationRequested();
            batch.Step();
        }
        return texts;
    }

    /// <summary>Takes in a text. The next step begins to read its prompt, or the first one after the prompts that are being read.</summary>
    /// <exception cref="ArgumentException">The request cannot be fulfilled; the message says why.</exception>
    public GeneratedText Add(TextRequest request)
    {
        if (request.Prompt.Count == 0) throw new ArgumentException("the prompt is empty: give at least one token", nameof(request));
        int known = _model.AdaptedConfig.VocabularySize;
        foreach (int id in request.Prompt)
        {
            if (id < 0 || id >= known)
                throw new ArgumentException($"the prompt's token {id} is not in the vocabulary: ids go from 0 to {known - 1}", nameof(request));
        }
        if (request.MaxTokens < 1) throw new ArgumentException($"{request.MaxTokens} tokens cannot be written: ask for at least 1", nameof(request));
        GeneratedText text = new(request);
        _waiting.Add(text);
        return text;
    }

    /// <summary>Ends a text here.</summary>
    public void End(GeneratedText text)
    {
        if (text.Finish is not null) return;
        text.Finish = FinishReason.Stop;
        _waiting.Remove(text);
        if (_reading?.RemoveEnded() == false) Leave(ref _reading);
        if (_running?.RemoveEnded() == false) Leave(ref _running);
    }

    /// <summary>Writes one more token of each text that runs, and reads a part of the prompts that wait; with the last part their texts begin.</summary>
    /// <returns>What was added; nothing where only prompts were read.</returns>
    /// <exception cref="InvalidDataException">The model's output is not a number.</exception>
    public IReadOnlyList<TextPiece> Step()
    {
        List<TextPiece> pieces = [];
        using DisposeScope scope = NewDisposeScope();
        if (_running is not null)
        {
            long[] newest = [.. _running.Texts.Select(t => (long)t.Ids[^1])];
            Draw(ref _running, _model.Forward(Ids(newest, newest.Length), _running.Cache), pieces);
        }
        if (_reading is null && _waiting.Count > 0)
        {
            _reading = new(_model, _contextLength, _waiting);
            _waiting.Clear();
        }
        if (_reading is null) return pieces;
        Tensor logits_BV = Read(_reading);
        if (_reading.Unread > 0) return pieces;
        Draw(ref _reading, logits_BV, pieces);
        if (_reading is null) return pieces;
        if (_running is null) _running = _reading;
        else
        {
            _running.Join(_reading);
            _reading.Dispose();
        }
        _reading = null;
        return pieces;
    }

    public void Dispose()
    {
        _waiting.Clear();
        Leave(ref _reading);
        Leave(ref _running);
    }

    private static void Leave(ref Rows? rows)
    {
        rows?.Dispose();
        rows = null;
    }

    /// <summary>Reads the next columns of the prompts.</summary>
    /// <returns>logits_BV of the last of them.</returns>
    private Tensor Read(Rows rows)
    {
        int count = Math.Min(PromptChunk, rows.Unread), after = rows.Unread - count;
        rows.Begin(after);
        int[] counts = new int[rows.Cache.Rows];
        long[] ids_BT = new long[counts.Length * count];
        for (int r = 0; r < counts.Length; r++)
        {
            // All prompts end with the last column.
            IReadOnlyList<int> prompt = rows.Texts[r].Request.Prompt;
            int end = prompt.Count - after;
            counts[r] = Math.Min(count, end);
            for (int t = 1; t <= counts[r]; t++) ids_BT[((r + 1) * count) - t] = prompt[end - t];
        }
        rows.Unread = after;
        return _model.Forward(Ids(ids_BT, counts.Length), counts, rows.Cache);
    }

    /// <summary>Adds a token to each text. Those that end leave.</summary>
    private void Draw(ref Rows? rows, Tensor logits_BV, List<TextPiece> pieces)
    {
        List<GeneratedText> texts = rows!.Texts;
        IReadOnlyList<SampledToken> tokens = Sampler.NextOfEach(logits_BV.narrow(1, 0, _vocabularySize),
            [.. texts.Select(t => t.Sampler)], [.. texts.Select(t => t.Ids)], [.. texts.Select(t => t.Request.Alternatives)]);
        pieces.AddRange(texts.Zip(tokens, (text, token) => text.Add(token)));
        if (!rows.RemoveEnded()) Leave(ref rows);
    }

    private Tensor Ids(long[] ids, int rows) => tensor(ids, [rows, ids.Length / rows], ScalarType.Int64, _model.Device);

    /// <summary>Texts with a row of one cache each.</summary>
    private sealed class Rows : IDisposable
    {
        private readonly Decoder _model;
        private readonly int _contextLength;

        /// <param name="texts">The longest prompts come first, so that the rows of the others can begin later.</param>
        public Rows(Decoder model, int contextLength, IEnumerable<GeneratedText> texts)
        {
            (_model, _contextLength) = (model, contextLength);
            Texts = [.. texts.OrderByDescending(t => t.Request.Prompt.Count)];
            Unread = Texts[0].Request.Prompt.Count;
            Cache = Empty(1);
        }

        public List<GeneratedText> Texts { get; }

        /// <summary>Rows for the first of the texts; for all when the prompts are read.</summary>
        public KeyValueCache Cache { get; }

        /// <summary>Columns of the prompts that are to be read.</summary>
        public int Unread { get; set; }

        /// <summary>Gives a row to each text with a prompt longer than so many columns.</summary>
        public void Begin(int columns)
        {
            int rows = Texts.Count(t => t.Request.Prompt.Count > columns);
            if (rows == Cache.Rows) return;
            using KeyValueCache empty = Empty(rows - Cache.Rows);
            Cache.Join(empty);
        }

        public void Join(Rows other)
        {
            Cache.Join(other.Cache);
            Texts.AddRange(other.Texts);
        }

        /// <returns>Whether any text is left.</returns>
        public bool RemoveEnded()
        {
            int[] left = [.. Enumerable.Range(0, Texts.Count).Where(r => Texts[r].Finish is null)];
            if (left.Length == Texts.Count || left.Length == 0) return left.Length > 0;
            int[] begun = [.. left.TakeWhile(r => r < Cache.Rows)];
            Texts.RemoveAll(t => t.Finish is not null);
            if (begun.Length > 0)
            {
                Cache.Select(begun);
                return true;
            }
            // The texts that are left have no row yet, so that the longest of them comes first now.
            Cache.Clear();
            Cache.Select([0]);
            Unread = Texts[0].Request.Prompt.Count;
            return true;
        }

        public void Dispose() => Cache.Dispose();

        private KeyValueCache Empty(int rows) => new(_model.Config, rows, _contextLength, _model.Device);
    }
}
