using System.Diagnostics;
using System.Text;

namespace NopeGpt.Web.Chat;

/// <summary>One conversation with one model: what was said, what is being said, and how the next reply is drawn. For one user at a time:
/// call it from the page's own context; <see cref="Changed"/> comes from there too while a reply streams.</summary>
public sealed class ChatSession(InferenceClient client) : IDisposable
{
    /// <summary>Often enough to look like typing, seldom enough for a slow line.</summary>
    private static readonly TimeSpan Flush = TimeSpan.FromMilliseconds(80);

    private readonly List<ChatMessage> _messages = [];
    private CancellationTokenSource? _stop;

    /// <summary>Something here changed; while a reply streams, at most about twelve times a second.</summary>
    public event Action? Changed;

    /// <summary>A run's id, "id/step", or a checkpoint folder.</summary>
    public string Model { get; set; } = "";

    /// <summary>Instruction that comes before the conversation; empty for none.</summary>
    public string SystemMessage { get; set; } = "";

    public double Temperature { get; set; } = 0.7;
    public int TopK { get; set; } = 50;
    public double TopP { get; set; } = 0.95;

    /// <summary>null draws a new one for each reply.</summary>
    public ulong? Seed { get; set; }

    public int MaxTokens { get; set; } = 200;

    /// <summary>What was said, oldest first, without the system instruction; whole messages only.</summary>
    public IReadOnlyList<ChatMessage> Messages => _messages;

    /// <summary>The reply that is being written.</summary>
    public string Partial { get; private set; } = "";

    public bool IsBusy => _stop is not null;

    /// <summary>Why the last reply is missing or not whole; null where all is well.</summary>
    public string? Error { get; private set; }

    /// <summary>Figures of the reply: tokens, speed, seed, why it ended.</summary>
    public ChatPiece? Last { get; private set; }

    /// <summary>Asks, and returns when the reply is whole, stopped or failed. A failure is told in <see cref="Error"/>; what had come of the
    /// reply until then stays.</summary>
    public Task SendAsync(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        if (IsBusy) throw new InvalidOperationException("a reply is being written: stop it first");
        _messages.Add(new ChatMessage("user", text));
        return ReplyAsync();
    }

    /// <summary>Throws the last reply away and asks for another.</summary>
    public Task RegenerateAsync()
    {
        if (IsBusy) throw new InvalidOperationException("a reply is being written: stop it first");
        if (_messages.Count > 0 && _messages[^1].Role == "assistant") _messages.RemoveAt(_messages.Count - 1);
        return _messages.Count == 0 ? Task.CompletedTask : ReplyAsync();
    }

    /// <summary>Takes the question of a message back, with everything after it, so that it can be put differently.</summary>
    /// <returns>Its text.</returns>
    public string TakeBack(int index)
    {
        if (IsBusy) throw new InvalidOperationException("a reply is being written: stop it first");
        string text = _messages[index].Content;
        _messages.RemoveRange(index, _messages.Count - index);
        (Error, Last) = (null, null);
        Changed?.Invoke();
        return text;
    }

    /// <summary>Ends the reply here; what has come of it stays.</summary>
    public void Stop() => _stop?.Cancel();

    public void Clear()
    {
        Stop();
        _messages.Clear();
        (Error, Last) = (null, null);
        Changed?.Invoke();
    }

    public void Dispose() => Stop();

    private async Task ReplyAsync()
    {
        using CancellationTokenSource stop = new();
        (_stop, Error, Last, Partial) = (stop, null, null, "");
        Changed?.Invoke();
        StringBuilder reply = new();
        int conversation = _messages.Count;
        try
        {
            Stopwatch sinceFlush = Stopwatch.StartNew();
            await foreach (ChatPiece piece in client.ChatAsync(Request(), stop.Token))
            {
                reply.Append(piece.Text);
                Last = piece;
                if (sinceFlush.Elapsed < Flush) continue;
                sinceFlush.Restart();
                Partial = reply.ToString();
                Changed?.Invoke();
            }
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            // What has come stays.
        }
        catch (InferenceException e)
        {
            Error = e.Message;
        }
        finally
        {
            // Nothing to add to where the conversation was cleared meanwhile.
            if (reply.Length > 0 && _messages.Count == conversation) _messages.Add(new ChatMessage("assistant", reply.ToString()));
            (_stop, Partial) = (null, "");
            Changed?.Invoke();
        }
    }

    private ChatRequest Request() => new(
        Model, SystemMessage.Length > 0 ? [new ChatMessage("system", SystemMessage), .. _messages] : [.. _messages], Temperature, TopK, TopP, Seed, MaxTokens);
}
