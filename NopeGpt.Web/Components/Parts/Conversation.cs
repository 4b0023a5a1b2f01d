using NopeGpt.Web.Chat;

namespace NopeGpt.Web.Components.Parts;

/// <summary>What a person and a model have said, and the reply that is being written. Used by one page, on its thread.</summary>
internal sealed class Conversation(InferenceClient client, TimeProvider time) : IDisposable
{
    // Often enough to look alive; seldom enough that a fast model does not flood the circuit.
    private static readonly TimeSpan Flush = TimeSpan.FromMilliseconds(80);

    private readonly List<Turn> _turns = [];
    private CancellationTokenSource? _reply;

    public IReadOnlyList<Turn> Turns => _turns;

    public bool IsBusy => _reply is not null;

    /// <summary>Says something and reads the model's reply until it ends, fails or is stopped. A failure stands in its turn.</summary>
    /// <param name="ask">Makes the request of the messages so far.</param>
    /// <param name="changed">Called when the turns look different, at most a dozen times a second.</param>
    public async Task SayAsync(string text, Func<IReadOnlyList<ChatMessage>, ChatRequest> ask, Action changed)
    {
        if (IsBusy || text.Length == 0) return;
        _turns.Add(new Turn(isModel: false, text));
        await ReplyAsync(ask, changed);
    }

    /// <summary>Drops the last reply and asks for another one.</summary>
    public async Task AgainAsync(Func<IReadOnlyList<ChatMessage>, ChatRequest> ask, Action changed)
    {
        if (IsBusy || _turns.Count == 0) return;
        if (_turns[^1].IsModel) _turns.RemoveAt(_turns.Count - 1);
        await ReplyAsync(ask, changed);
    }

    public void Stop() => _reply?.Cancel();

    public void Clear()
    {
        Stop();
        _turns.Clear();
    }

    public void Dispose() => Stop();

    private async Task ReplyAsync(Func<IReadOnlyList<ChatMessage>, ChatRequest> ask, Action changed)
    {
        ChatMessage[] messages = [.. _turns.Where(t => t.Text.Length > 0).Select(t => new ChatMessage(t.IsModel ? "assistant" : "user", t.Text))];
        Turn turn = new(isModel: true, "");
        _turns.Add(turn);
        using CancellationTokenSource reply = _reply = new();
        changed();
        long shown = time.GetTimestamp();
        try
        {
            await foreach (ChatPiece piece in client.ChatAsync(ask(messages), reply.Token))
            {
                turn.Take(piece);
                if (time.GetElapsedTime(shown) < Flush) continue;
                changed();
                shown = time.GetTimestamp();
            }
        }
        catch (OperationCanceledException) when (reply.IsCancellationRequested) { turn.IsStopped = true; }
        catch (InferenceException e) { turn.Error = e.Message; }
        finally
        {
            turn.IsGrowing = false;
            _reply = null;
            changed();
        }
    }
}
