using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs;

namespace NopeGpt.Web.Tokens;

/// <summary>What is tried on the tokenizers' page.</summary>
/// <param name="Tokenizer">The one whose tokens are shown.</param>
/// <param name="Others">Those that it is compared with.</param>
/// <param name="Specials">The texts of special tokens become their ids.</param>
/// <param name="Sample">The data set whose text the comparison is made on; null for the text itself.</param>
internal sealed record TokenizerQuestion(string Text, string Tokenizer, IReadOnlyList<string> Others, bool Specials, string? Sample);

/// <summary>One tokenizer's figures.</summary>
/// <param name="Figures">Null where it cannot be read; <paramref name="Problem"/> says why.</param>
public sealed record ComparedTokenizer(string Name, Compression? Figures, string? Problem);

/// <summary>Answers questions of the page on threads of its own: the newest one counts, older ones are given up.</summary>
internal sealed class TokenizerDesk(TokenizerShelf shelf, Store store) : IDisposable
{
    private readonly Lock _lock = new();
    private CancellationTokenSource? _current;
    private string? _comparedOn;

    /// <summary>The tokens of the newest question that was answered; null before, and where its tokenizer cannot be read.</summary>
    public TokenTrial? Trial { get; private set; }

    /// <summary>Why there are no tokens, as one sentence.</summary>
    public string? Problem { get; private set; }

    public IReadOnlyList<ComparedTokenizer> Compared { get; private set; } = [];

    /// <summary>Why there is no comparison, as one sentence.</summary>
    public string? ComparisonProblem { get; private set; }

    /// <summary>A question is being answered.</summary>
    public bool IsBusy { get; private set; }

    /// <summary>Something above is another now. Raised on any thread.</summary>
    public event Action? Changed;

    /// <summary>Asks; the answer comes in parts, each with <see cref="Changed"/>.</summary>
    public async Task AskAsync(TokenizerQuestion question)
    {
        ArgumentNullException.ThrowIfNull(question);
        CancellationTokenSource mine = new();
        lock (_lock)
        {
            _current?.Cancel();
            _current = mine;
        }
        try
        {
            Set(mine, () => IsBusy = true);
            await Task.Run(() => Answer(question, mine), mine.Token).ConfigureAwait(false);
            Set(mine, () => IsBusy = false);
        }
        catch (OperationCanceledException) { /* a newer question has come, or the page has been left */ }
        finally
        {
            lock (_lock)
            {
                if (_current == mine) _current = null;
            }
            mine.Dispose();
        }
    }

    public void Dispose()
    {
        lock (_lock)
        {
            _current?.Cancel();
            _current = null;
        }
    }

    private void Answer(TokenizerQuestion question, CancellationTokenSource mine)
    {
        (TokenTrial? trial, string? problem) = (null, null);
        try { trial = TokenTrial.Of(shelf.Load(question.Tokenizer), question.Text, question.Specials); }
        catch (Exception e) when (IsMendable(e)) { problem = e.Message; }
        Set(mine, () => (Trial, Problem) = (trial, problem));
        // What was compared on a data set does not change with the text.
        string? key = question.Sample is null ? null : string.Join('\n', [question.Sample, question.Tokenizer, .. question.Others]);
        if (key is not null && key == _comparedOn) return;
        CancellationToken cancel = mine.Token;
        (IReadOnlyList<ComparedTokenizer> compared, string? reason) = ([], null);
        try
        {
            IReadOnlyList<string> documents = question.Sample is { } dataset ? DatasetSample.Read(store, dataset, cancel) : [question.Text];
            IEnumerable<string> names = trial is null ? question.Others : question.Others.Prepend(question.Tokenizer);
            compared = [.. names.Distinct().Select(name => Compare(name, documents, cancel))];
        }
        catch (Exception e) when (IsMendable(e)) { reason = e.Message; }
        Set(mine, () => (Compared, ComparisonProblem, _comparedOn) = (compared, reason, reason is null ? key : null));
    }

    private ComparedTokenizer Compare(string name, IReadOnlyList<string> documents, CancellationToken cancel)
    {
        cancel.ThrowIfCancellationRequested();
        try { return new ComparedTokenizer(name, TokenizerComparison.Compare(documents, [(name, shelf.Load(name))], cancel)[0], null); }
        catch (Exception e) when (IsMendable(e)) { return new ComparedTokenizer(name, null, e.Message); }
    }

    private void Set(CancellationTokenSource mine, Action change)
    {
        lock (_lock)
        {
            if (_current != mine) throw new OperationCanceledException();
            change();
        }
        Changed?.Invoke();
    }

    private static bool IsMendable(Exception e) => e is IOException or InvalidDataException or UnauthorizedAccessException or ArgumentException;
}
