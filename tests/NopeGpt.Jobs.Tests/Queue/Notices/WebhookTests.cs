using System.Collections.Concurrent;
using System.Diagnostics;
using System.Security.Cryptography;
using System.Text;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using NopeGpt.Jobs.Queue;
using NopeGpt.Tests;

namespace NopeGpt.Jobs.Tests.Queue;

/// <summary>The sending of notices, to receivers that fail, are slow, or lead elsewhere.</summary>
[Collection(QueueTestsGroup.Name)]
public sealed class WebhookTests : IDisposable
{
    private static readonly TimeSpan Soon = TimeSpan.FromMilliseconds(20), Never = TimeSpan.FromHours(1);
    private readonly TemporaryFolder folder = new();

    public void Dispose() => folder.Dispose();

    [Fact]
    public async Task A_notice_that_was_not_taken_comes_again_the_same_until_it_is()
    {
        using Receiver receiver = Receiver.Answering(500, 404, 204);
        await using Sender sender = await Sender.StartAsync(folder.Path, receiver);
        sender.Tell("run", "it was <b>bad</b> & \"odd\"\n\u0000");
        Received first = await receiver.UntilAsync(1), last = await receiver.UntilAsync(3);
        Assert.Equal(("POST", "/hooks/s3cr3t?token=s3cr3t", "application/json; charset=utf-8"), (first.Method, first.Path, first.Headers["Content-Type"]));
        Assert.Equal(first.Body, last.Body);
        Assert.Equal((first.Id, first.Id), (last.Id, last.Json.GetProperty("id").GetString()));
        Assert.Equal(["1", "2", "3"], receiver.Taken.Select(t => t.Headers["X-NopeGpt-Try"]));
        Assert.Equal("it was <b>bad</b> & \"odd\"\n\u0000", last.Json.GetProperty("run").GetProperty("reason").GetString());
        Assert.DoesNotContain("X-NopeGpt-Signature", last.Headers.Keys);
        await WaitFor.TrueAsync(() => sender.Files.Length == 0, "an empty outbox");
    }

    [Fact]
    public async Task A_receiver_that_does_not_answer_holds_up_no_other_and_is_asked_again()
    {
        using Receiver silent = new((_, _) => Task.CompletedTask), quick = Receiver.Answering(200);
        await using Sender sender = await Sender.StartAsync(folder.Path, o => o with { Timeout = TimeSpan.FromMilliseconds(300) }, silent, quick);
        Stopwatch told = Stopwatch.StartNew();
        sender.Tell("run", null);
        Assert.True(told.Elapsed < TimeSpan.FromSeconds(5), $"telling took {told.Elapsed}");
        Received taken = await quick.UntilAsync(1), again = await silent.UntilAsync(2);
        Assert.Equal(taken.Id, again.Id);
        Assert.Single(quick.Taken);
    }

    [Fact]
    public async Task Redirects_are_not_followed_and_the_notice_is_given_up_after_the_last_pause()
    {
        using Receiver elsewhere = Receiver.Answering(200);
        using Receiver redirecting = new((_, context) =>
        {
            context.Response.Redirect(elsewhere.Address);
            context.Response.Close();
            return Task.CompletedTask;
        });
        await using Sender sender = await Sender.StartAsync(folder.Path, redirecting);
        sender.Tell("run", null);
        await redirecting.UntilAsync(4);
        await WaitFor.TrueAsync(() => sender.Files.Length == 0, "the notice given up");
        Assert.Equal(4, redirecting.Taken.Count);
        Assert.Empty(elsewhere.Taken);
        Assert.Contains(sender.Log, line => line.Contains("status 302", StringComparison.Ordinal) && line.Contains("given up after 4 tries", StringComparison.Ordinal));
    }

    [Fact]
    public async Task What_was_not_taken_outlasts_the_dashboard()
    {
        using Receiver refusing = Receiver.Answering(503, 200);
        await using (Sender before = await Sender.StartAsync(folder.Path, o => o with { Pauses = [Never] }, refusing))
        {
            before.Tell("run", null);
            await refusing.UntilAsync(1);
            await WaitFor.TrueAsync(() => before.Log.Any(l => l.Contains("is sent again", StringComparison.Ordinal)), "the try to be noted");
        }
        await using Sender after = await Sender.StartAsync(folder.Path, refusing);
        Received second = await refusing.UntilAsync(2);
        Assert.Equal((refusing.Taken.First().Id, "2"), (second.Id, second.Headers["X-NopeGpt-Try"]));
        await WaitFor.TrueAsync(() => after.Files.Length == 0, "an empty outbox");
    }

    [Fact]
    public async Task A_secret_signs_what_is_sent()
    {
        using Receiver receiver = Receiver.Answering(200);
        await using Sender sender = await Sender.StartAsync(folder.Path, o => o with { Secret = "k\u00e4se" }, receiver);
        sender.Tell("run", null);
        Received taken = await receiver.UntilAsync(1);
        Assert.Equal("sha256=" + Convert.ToHexStringLower(HMACSHA256.HashData(Encoding.UTF8.GetBytes("k\u00e4se"), taken.Body)), taken.Headers["X-NopeGpt-Signature"]);
    }

    [Fact]
    public async Task No_more_than_two_hundred_wait_and_addresses_stay_out_of_log_and_files()
    {
        using Receiver refusing = Receiver.Answering(500);
        await using Sender sender = await Sender.StartAsync(folder.Path, o => o with { Pauses = [Never], Secret = "s3cr3t" }, refusing);
        for (int i = 0; i < NoticeOutbox.Most + 5; i++) sender.Tell($"run-{i:d3}", null);
        Assert.Equal(NoticeOutbox.Most, sender.Files.Length);
        Assert.DoesNotContain(sender.Files, f => f.Contains("run-004", StringComparison.Ordinal));
        await refusing.UntilAsync(3);
        await WaitFor.TrueAsync(() => sender.Log.Any(l => l.Contains("is sent again", StringComparison.Ordinal)), "a line about a try");
        Assert.DoesNotContain(sender.Log, l => l.Contains("s3cr3t", StringComparison.Ordinal));
        Assert.DoesNotContain(sender.Files, f => f.Contains("s3cr3t", StringComparison.Ordinal) || File.ReadAllText(f).Contains("s3cr3t", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_damaged_notice_goes_and_those_for_receivers_that_are_not_named_any_more()
    {
        using Receiver receiver = Receiver.Answering(200);
        await using (Sender before = await Sender.StartAsync(folder.Path, o => o with { Webhooks = [Webhook.Parse("http://127.0.0.1:9/gone"), .. o.Webhooks], Pauses = [Never] }, receiver))
        {
            before.Tell("run", null);
            await receiver.UntilAsync(1);
            await WaitFor.TrueAsync(() => before.Files.Length == 1, "only what is not taken");
        }
        Webhook here = Webhook.Parse(receiver.Address);
        File.WriteAllText(Path.Combine(folder.Path, "notices", $"damaged.{here.Key}.json"), "{");
        await using Sender after = await Sender.StartAsync(folder.Path, receiver);
        await WaitFor.TrueAsync(() => after.Files.Length == 0, "an empty outbox");
        after.Tell("next", null);
        Assert.StartsWith("next", (await receiver.UntilAsync(2)).Id, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_a_killed_dashboard_had_drafted_is_sent_where_it_has_happened()
    {
        using Receiver receiver = Receiver.Answering(200);
        await using (Sender killed = await Sender.StartAsync(folder.Path, receiver))
        {
            foreach (string id in new[] { "ended", "goes-on" }) Assert.Single(killed.Draft(await killed.RowAsync(id, id == "ended" ? RunState.Failed : RunState.Running)));
            Assert.Empty(receiver.Taken);
        }
        await using Sender next = await Sender.StartAsync(folder.Path, receiver);
        Assert.Equal("ended.0", (await receiver.UntilAsync(1)).Id);
        await WaitFor.TrueAsync(() => next.Files is [var one] && one.Contains("goes-on.0", StringComparison.Ordinal) && one.EndsWith(".draft", StringComparison.Ordinal), "only the draft of the other");
    }

    [Theory]
    [InlineData("ftp://example.com/s3cr3t", "Notices:Webhook has something that is not an address")]
    [InlineData("https://a/1 s3cr3t", "Notices:Webhook has something that is not an address")]
    [InlineData("https://me:s3cr3t@example.com/", "before the host example.com")]
    [InlineData("http://a/1 http://a/2 http://a/3 http://a/4 http://a/5 http://a/6 http://a/7 http://a/8 http://a/9 http://a/s3cr3t http://a/11", "names 11 addresses: 10 at most")]
    public void An_address_that_is_none_is_refused_without_showing_it(string value, string why)
    {
        string message = Assert.Throws<UserException>(() => NoticeOptions.Read(Settings(("Notices:Webhook", value)))).Message;
        Assert.Contains(why, message, StringComparison.Ordinal);
        Assert.DoesNotContain("s3cr3t", message, StringComparison.Ordinal);
    }

    [Fact]
    public void Several_addresses_stand_in_one_text_or_in_a_list()
    {
        NoticeOptions options = NoticeOptions.Read(Settings(("Notices:Webhook", " https://a/1  http://b/2 "), ("Notices:Webhook:0", "https://c/3"), ("Notices:Webhook:1", "https://a/1"), ("urls", "http://127.0.0.1:5080;http://[::1]:1")));
        Assert.Equal(["https://a/1", "http://b/2", "https://c/3"], options.Webhooks.Select(w => w.Address.AbsoluteUri).OrderBy(a => a[^1]));
        Assert.Equal("http://127.0.0.1:5080", options.Dashboard);
        Assert.Empty(NoticeOptions.Read(Settings(("Notices:Webhook", ""))).Webhooks);
    }

    private static IConfiguration Settings(params (string Key, string Value)[] settings) =>
        new ConfigurationBuilder().AddInMemoryCollection(settings.Select(s => KeyValuePair.Create(s.Key, (string?)s.Value))).Build();

    /// <summary>The queue's services, of which only the sender works.</summary>
    private sealed class Sender : IAsyncDisposable, ILoggerProvider, ILogger
    {
        private readonly ServiceProvider services;
        private readonly WebhookSender sender;
        private readonly string root;

        private Sender(string root, NoticeOptions options)
        {
            this.root = root;
            ServiceCollection all = new();
            all.AddLogging(l => l.AddProvider(this)).AddSingleton(new Store(root)).AddSingleton(new TrainerProgram(QueueHarness.DummyPath, [])).AddSingleton(options);
            all.AddRunQueue(new ConfigurationBuilder().Build());
            services = all.BuildServiceProvider();
            sender = services.GetServices<IHostedService>().OfType<WebhookSender>().Single();
        }

        public ConcurrentQueue<string> Log { get; } = [];

        public string[] Files => Directory.GetFiles(Path.Combine(root, "notices")).Where(f => Path.GetFileName(f) != "lock" && !f.EndsWith(".new", StringComparison.Ordinal)).ToArray();

        private RunNotices Notices => services.GetRequiredService<RunNotices>();

        public static Task<Sender> StartAsync(string root, params Receiver[] receivers) => StartAsync(root, o => o, receivers);

        public static async Task<Sender> StartAsync(string root, Func<NoticeOptions, NoticeOptions> change, params Receiver[] receivers)
        {
            Sender started = new(root, change(new([.. receivers.Select(r => Webhook.Parse(r.Address))], "", null) { Pauses = [Soon, Soon, Soon] }));
            await started.services.GetRequiredService<RunSchema>().EnsureAsync(CancellationToken.None);
            await started.sender.StartAsync(CancellationToken.None);
            return started;
        }

        public async Task<RunRow> RowAsync(string id, RunState state)
        {
            RunRow row = new() { Id = id, Name = id, State = state };
            await services.GetRequiredService<RunLedger>().AddAsync(row);
            return row;
        }

        public IReadOnlyList<string> Draft(RunRow row) => Notices.Ending(row, RunState.Failed, "bad", null, paused: false);

        public void Tell(string id, string? reason) => Notices.Release(Notices.Ending(new RunRow { Id = id, Name = id }, RunState.Failed, reason, null, paused: false));

        public ILogger CreateLogger(string categoryName) => this;

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        void ILogger.Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) => Log.Enqueue(formatter(state, exception) + exception);

        public void Dispose()
        {
        }

        public async ValueTask DisposeAsync()
        {
            await sender.StopAsync(CancellationToken.None);
            await services.DisposeAsync();
        }
    }
}
