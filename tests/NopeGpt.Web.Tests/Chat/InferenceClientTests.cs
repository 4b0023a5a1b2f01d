using NopeGpt.Web.Chat;
using NopeGpt.Web.Tests.Live;

namespace NopeGpt.Web.Tests.Chat;

public sealed class InferenceClientTests : IAsyncLifetime
{
    private readonly ModelFixture _models = new();

    public Task InitializeAsync() => Task.CompletedTask;
    public async Task DisposeAsync() => await _models.DisposeAsync();

    [Fact]
    public async Task A_reply_comes_in_pieces_with_its_figures_at_the_end()
    {
        List<ChatPiece> pieces = await ListAsync(_models.Client().ChatAsync(ModelFixture.Ask("one two three", seed: 9)));
        Assert.Equal("one two three ", string.Concat(pieces.Select(p => p.Text)));
        Assert.Equal(4, pieces.Count);
        Assert.All(pieces.SkipLast(1), p => Assert.Null(p.FinishReason));
        Assert.Equal(new ChatPiece("", "stop", 3, 48.5, 9), pieces[^1]);
    }

    [Fact]
    public async Task Many_first_questions_start_one_process()
    {
        InferenceClient client = _models.Client();
        await Task.WhenAll(Enumerable.Range(0, 5).Select(_ => ListAsync(client.ChatAsync(ModelFixture.Ask("hello")))));
        Assert.Single(_models.Started);
    }

    [Fact]
    public async Task A_process_killed_in_the_middle_is_told_and_the_next_question_starts_another()
    {
        InferenceClient client = _models.Client();
        string text = "";
        InferenceException failure = await Assert.ThrowsAsync<InferenceException>(async () =>
        {
            await foreach (ChatPiece piece in client.ChatAsync(ModelFixture.Ask("la", "slow")))
            {
                text += piece.Text;
                if (text.Length == 9) Kill(_models.Started[0]);
            }
        });
        Assert.Equal("The model process ended unexpectedly (killed, signal 9). Ask again: it starts anew.", failure.Message);
        Assert.StartsWith("la la la ", text, StringComparison.Ordinal);
        Assert.Equal("again ", (await ListAsync(client.ChatAsync(ModelFixture.Ask("again"))))[0].Text);
        Assert.Equal(2, _models.Started.Length);
    }

    [Fact]
    public async Task A_process_that_ended_between_two_questions_is_started_again()
    {
        InferenceClient client = _models.Client();
        await ListAsync(client.ChatAsync(ModelFixture.Ask("one")));
        Kill(_models.Started[0]);
        await Wait.UntilAsync(() => !ModelFixture.IsAlive(_models.Started[0]), "its end");
        Assert.Equal("two ", (await ListAsync(client.ChatAsync(ModelFixture.Ask("two"))))[0].Text);
    }

    [Fact]
    public async Task What_an_earlier_dashboard_left_is_used_and_left_and_its_end_is_told()
    {
        await ListAsync(_models.Client().ChatAsync(ModelFixture.Ask("one")));
        ModelProcess later = _models.Process();
        InferenceClient client = new(later);
        await ListAsync(client.ChatAsync(ModelFixture.Ask("two")));
        Assert.Single(_models.Started);
        await later.DisposeAsync();
        Assert.True(ModelFixture.IsAlive(_models.Started[0]), "only who started it may stop it");
        client = _models.Client();
        InferenceException failure = await Assert.ThrowsAsync<InferenceException>(async () =>
        {
            await foreach (ChatPiece piece in client.ChatAsync(ModelFixture.Ask("la", "slow"))) Kill(_models.Started[0]);
        });
        Assert.Equal("The model process ended unexpectedly. Ask again: it starts anew.", failure.Message);
        Assert.Equal("three ", (await ListAsync(client.ChatAsync(ModelFixture.Ask("three"))))[0].Text);
        Assert.Equal(2, _models.Started.Length);
    }

    [Fact]
    public async Task The_process_ends_with_who_started_it()
    {
        ModelProcess process = _models.Process();
        await ListAsync(new InferenceClient(process).ChatAsync(ModelFixture.Ask("one")));
        await process.DisposeAsync();
        Assert.False(ModelFixture.IsAlive(_models.Started[0]));
    }

    [Fact]
    public async Task A_start_that_fails_says_what_the_process_said()
    {
        await using ModelFixture bad = new("refuse-to-start");
        InferenceException failure = await Assert.ThrowsAsync<InferenceException>(() => ListAsync(bad.Client().ChatAsync(ModelFixture.Ask("one"))));
        Assert.Equal("The model process did not start (exit code 2): no room for the model", failure.Message);
    }

    [Fact]
    public async Task A_start_whose_caller_has_left_is_waited_for_by_the_next()
    {
        await using ModelFixture slow = new("wait-to-start");
        InferenceClient client = slow.Client();
        using CancellationTokenSource leave = new();
        Task first = ListAsync(client.ChatAsync(ModelFixture.Ask("one"), leave.Token));
        await Wait.UntilAsync(() => slow.Started.Length == 1, "the start");
        await leave.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => first);
        Task<List<ChatPiece>> second = ListAsync(client.ChatAsync(ModelFixture.Ask("two")));
        await File.WriteAllTextAsync(Path.Combine(slow.Store.Root, "go"), "");
        Assert.Equal("two ", (await second)[0].Text);
        Assert.Single(slow.Started);
    }

    [Fact]
    public async Task A_start_whose_caller_has_left_and_that_failed_is_made_again()
    {
        await using ModelFixture slow = new("wait-to-start");
        InferenceClient client = slow.Client();
        using CancellationTokenSource leave = new();
        Task first = ListAsync(client.ChatAsync(ModelFixture.Ask("one"), leave.Token));
        await Wait.UntilAsync(() => slow.Started.Length == 1, "the start");
        await leave.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => first);
        Task<List<ChatPiece>> second = ListAsync(client.ChatAsync(ModelFixture.Ask("two")));
        Kill(slow.Started[0]);
        await File.WriteAllTextAsync(Path.Combine(slow.Store.Root, "go"), "");
        Assert.Equal("two ", (await second)[0].Text);
        Assert.Equal(2, slow.Started.Length);
    }

    [Theory]
    [InlineData("missing", "there is no model 'missing'")]
    [InlineData("failing", "the reply failed: out of memory")]
    [InlineData("broken", "The model process closed the connection in the middle of the reply. Ask again.")]
    public async Task Errors_of_the_model_are_told_as_they_are(string model, string expected)
    {
        InferenceException failure = await Assert.ThrowsAsync<InferenceException>(() => ListAsync(_models.Client().ChatAsync(ModelFixture.Ask("one", model))));
        Assert.Equal(expected, failure.Message);
    }

    [Fact]
    public async Task Stopping_keeps_the_process()
    {
        InferenceClient client = _models.Client();
        using CancellationTokenSource stop = new();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(async () =>
        {
            await foreach (ChatPiece piece in client.ChatAsync(ModelFixture.Ask("la", "slow"), stop.Token)) await stop.CancelAsync();
        });
        await ListAsync(client.ChatAsync(ModelFixture.Ask("one")));
        Assert.Single(_models.Started);
    }

    [Fact]
    public async Task A_session_keeps_the_conversation_and_tells_seldom()
    {
        using ChatSession session = new(_models.Client()) { Model = "stub", SystemMessage = "be brief" };
        int changes = 0;
        session.Changed += () => changes++;
        string question = string.Join(' ', Enumerable.Repeat("word", 50));
        await session.SendAsync(question);
        Assert.Equal([("user", question), ("assistant", question + " ")], session.Messages.Select(m => (m.Role, m.Content)));
        Assert.InRange(changes, 3, 30);
        Assert.Equal(("stop", 50, 77UL), (session.Last!.FinishReason, session.Last.Tokens, session.Last.Seed));
        await session.RegenerateAsync();
        Assert.Equal(2, session.Messages.Count);
        Assert.Equal(question, session.TakeBack(0));
        Assert.Empty(session.Messages);
    }

    [Fact]
    public async Task A_session_that_is_stopped_keeps_what_had_come()
    {
        using ChatSession session = new(_models.Client()) { Model = "slow" };
        Task reply = session.SendAsync("la");
        await Wait.UntilAsync(() => session.Partial.Length > 0, "the beginning of a reply");
        session.Stop();
        await reply;
        Assert.StartsWith("la ", session.Messages[1].Content, StringComparison.Ordinal);
        Assert.Null(session.Error);
        Assert.False(session.IsBusy);
    }

    [Fact]
    public async Task A_session_whose_model_dies_keeps_what_had_come_and_says_why()
    {
        using ChatSession session = new(_models.Client()) { Model = "slow" };
        Task reply = session.SendAsync("la");
        await Wait.UntilAsync(() => session.Partial.Length > 0, "the beginning of a reply");
        Kill(_models.Started[0]);
        await reply;
        Assert.Contains("killed, signal 9", session.Error, StringComparison.Ordinal);
        Assert.Equal(2, session.Messages.Count);
        session.Model = "stub";
        await session.SendAsync("again");
        Assert.Null(session.Error);
        Assert.Equal("again ", session.Messages[3].Content);
    }

    private static void Kill(int processId)
    {
        if (!ModelFixture.IsAlive(processId)) return;
        using System.Diagnostics.Process process = System.Diagnostics.Process.GetProcessById(processId);
        process.Kill();
    }

    private static async Task<List<ChatPiece>> ListAsync(IAsyncEnumerable<ChatPiece> pieces)
    {
        List<ChatPiece> list = [];
        await foreach (ChatPiece piece in pieces) list.Add(piece);
        return list;
    }
}
