using Bunit;
using Microsoft.AspNetCore.Components.Web;
using MudBlazor;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;
using NopeGpt.Web.Components.Pages;
using NopeGpt.Web.Tests.Live;

namespace NopeGpt.Web.Tests.Pages;

/// <summary>The queue on the pages: order, people's words, copies, deletion. Nothing is dispatched, so runs stay as they are.</summary>
public sealed class QueuePagesTests
{
    [Fact]
    public async Task Waiting_runs_stand_in_their_order_and_are_moved_and_held()
    {
        await using PageHost host = await PageHost.StartAsync();
        string[] ids = [await AddAsync(host, "One"), await AddAsync(host, "Two"), await AddAsync(host, "Three")];
        IRenderedComponent<Runs> page = host.Page.Render<Runs>();
        page.WaitForAssertion(() => Assert.Equal(ids, Waiting(page)));
        Assert.True(page.Find("[aria-label='Move One up']").HasAttribute("disabled"));
        await page.Find("[aria-label='Move Three to the top']").ClickAsync(new MouseEventArgs());
        page.WaitForAssertion(() => Assert.Equal([ids[2], ids[0], ids[1]], Waiting(page)));
        await page.Find("[aria-label='Move One down']").ClickAsync(new MouseEventArgs());
        page.WaitForAssertion(() => Assert.Equal([ids[2], ids[1], ids[0]], Waiting(page)));
        await page.Find("[aria-label='Hold Two']").ClickAsync(new MouseEventArgs());
        page.WaitForAssertion(() => Assert.NotNull(page.Find("[aria-label='Release Two']")));
        Assert.True((await host.Queue.FindAsync(ids[1]))!.Held);
        await page.Find("[aria-label='Priority and earliest start of One']").ClickAsync(new MouseEventArgs());
        await page.Find($"#priority-{ids[0]}").ChangeAsync(new() { Value = "9" });
        page.WaitForAssertion(() => Assert.Equal([ids[0], ids[2], ids[1]], Waiting(page)));
        await page.Find($"#earliest-{ids[0]}").ChangeAsync(new() { Value = "2100-01-02T03:04" });
        Assert.Equal(new DateTime(2100, 1, 2, 3, 4, 0), (await host.Queue.FindAsync(ids[0]))!.NotBefore!.Value.LocalDateTime);
    }

    [Fact]
    public async Task The_queue_is_paused_on_its_page_and_says_so_when_it_is_paused_elsewhere()
    {
        await using PageHost host = await PageHost.StartAsync();
        await AddAsync(host, "One");
        IRenderedComponent<Runs> page = host.Page.Render<Runs>();
        await Button(page, "Pause").ClickAsync(new MouseEventArgs());
        Assert.True(host.Queue.Settings.Paused);
        page.WaitForAssertion(() => Assert.Contains("The queue is paused", page.Find(".queue").TextContent, StringComparison.Ordinal));
        host.Queue.Change(paused: false, stopAtFailure: true);
        page.WaitForAssertion(() => Assert.DoesNotContain("The queue is paused", page.Find(".queue").TextContent, StringComparison.Ordinal));
        page.WaitForAssertion(() => Assert.True(page.Find(".queue input[type=checkbox]").HasAttribute("checked")));
    }

    [Fact]
    public async Task Several_runs_are_resumed_and_deleted_at_once_and_had_back()
    {
        await using PageHost host = await PageHost.StartAsync(store =>
        {
            Story.Training(store, "First", RunState.Interrupted, "stopped");
            Story.Training(store, "Second", RunState.Interrupted, "stopped");
            Story.Training(store, "Third", RunState.Completed);
        });
        IRenderedComponent<MudDialogProvider> dialogs = host.Page.Render<MudDialogProvider>();
        IRenderedComponent<Runs> page = host.Page.Render<Runs>();
        foreach (string name in new[] { "First", "Second" }) await page.Find($"[aria-label='Select {name}']").ChangeAsync(new() { Value = true });
        Assert.Equal("2 selected", page.Find(".selected .num").TextContent);
        // Found and pressed in one go on the renderer's thread: runs that change have the page drawn anew at any time, and then the button found is none any more.
        await page.InvokeAsync(() => page.FindAll(".selected button").Single(b => b.TextContent == "Resume").ClickAsync(new MouseEventArgs()));
        page.WaitForAssertion(() => Assert.Equal(2, Waiting(page).Length));
        Task deleting = page.InvokeAsync(() => page.FindAll(".selected button").Single(b => b.TextContent == "Delete…").ClickAsync(new MouseEventArgs()));
        dialogs.WaitForAssertion(() => Assert.Matches(@"2 runs \((First, Second|Second, First)\): [\d.]+ KB on the disk\. The trash keeps them for 7 days\.", dialogs.Markup));
        await dialogs.FindAll("button").Single(b => b.TextContent == "Delete").ClickAsync(new MouseEventArgs());
        await deleting;
        Assert.Equal("Third", (await host.Queue.ListAsync()).Single().Name);
        page.WaitForAssertion(() => Assert.Equal(2, page.FindAll("[data-trashed]").Count));
        await page.InvokeAsync(() => page.Find("[aria-label='Restore First']").ClickAsync(new MouseEventArgs()));
        page.WaitForAssertion(() => Assert.Equal(2, page.FindAll("tbody tr").Count));
    }

    [Fact]
    public async Task Deleting_says_who_needs_the_run()
    {
        await using PageHost host = await PageHost.StartAsync();
        string id = await AddAsync(host, "One");
        await host.Queue.AddAsync(new RunConfig { Kind = RunKind.Prepare, Name = Story.Unsafe, Prepare = new PrepareConfig { Dataset = "two" } }, [id]);
        IRenderedComponent<MudDialogProvider> dialogs = host.Page.Render<MudDialogProvider>();
        IRenderedComponent<Runs> page = host.Page.Render<Runs>();
        await page.Find("[aria-label='Select One']").ChangeAsync(new() { Value = true });
        Task deleting = page.FindAll(".selected button").Single(b => b.TextContent == "Delete…").ClickAsync(new MouseEventArgs());
        dialogs.WaitForAssertion(() => Assert.Contains($"run {Story.Unsafe} waits for it", dialogs.Find(".mud-dialog-content").TextContent, StringComparison.Ordinal));
        Assert.Empty(dialogs.FindAll("script, b"));
        await dialogs.FindAll("button").Single(b => b.TextContent == "Keep").ClickAsync(new MouseEventArgs());
        await deleting;
        Assert.NotNull(await host.Queue.FindAsync(id));
    }

    [Fact]
    public async Task Tags_and_notes_are_written_and_never_markup()
    {
        Scribe run = null!;
        await using PageHost host = await PageHost.StartAsync(store => run = Story.Training(store, "Story model", RunState.Completed));
        IRenderedComponent<RunPage> page = host.Page.Render<RunPage>(p => p.Add(r => r.Id, run.Id));
        await Button(page, "Edit").ClickAsync(new MouseEventArgs());
        page.Find("#tags").Input("baseline, <b>x</b>");
        page.Find("#notes").Input(Story.Unsafe);
        await page.Find(".people form").SubmitAsync();
        page.WaitForAssertion(() => Assert.Equal(Story.Unsafe, page.Find(".notes").TextContent));
        Assert.Equal(["baseline", "<b>x</b>"], page.FindAll(".people .tag").Select(t => t.TextContent));
        Assert.Empty(page.FindAll("script, b"));
    }

    [Fact]
    public async Task A_checkpoint_is_pinned_and_a_run_is_copied_from_its_page()
    {
        Scribe run = null!;
        await using PageHost host = await PageHost.StartAsync(store => run = Story.Training(store, "Story model", RunState.Completed));
        string prepared = await AddAsync(host, "Corpus");
        IRenderedComponent<RunPage> page = host.Page.Render<RunPage>(p => p.Add(r => r.Id, run.Id));
        await page.Find("[aria-label='Pin step 50']").ClickAsync(new MouseEventArgs());
        Assert.Equal([50], run.Folder.ReadCard().Pinned);
        page.WaitForAssertion(() => Assert.Equal("true", page.Find("[aria-label='Unpin step 50']").GetAttribute("aria-pressed")));

        await page.Find("[aria-label='Fork from step 50']").ClickAsync(new MouseEventArgs());
        Assert.Equal("100", page.Find("#fork-steps").GetAttribute("value"));
        RunRow copy = await host.Queue.DuplicateAsync(prepared);
        IRenderedComponent<RunPage> other = host.Page.Render<RunPage>(p => p.Add(r => r.Id, copy.Id));
        other.WaitForAssertion(() => Assert.Equal("Corpus", other.Find($"a[href='runs/{prepared}']").TextContent));
        IRenderedComponent<RunPage> first = host.Page.Render<RunPage>(p => p.Add(r => r.Id, prepared));
        first.WaitForAssertion(() => Assert.Equal("Corpus", first.Find($"a[href='runs/{copy.Id}']").TextContent));
    }

    private static async Task<string> AddAsync(PageHost host, string name) =>
        (await host.Queue.AddAsync(new RunConfig { Kind = RunKind.Prepare, Name = name, Prepare = new PrepareConfig { Dataset = name.ToLowerInvariant() } })).Id;

    private static string[] Waiting(IRenderedComponent<Runs> page) => [.. page.FindAll("[data-waiting]").Select(e => e.GetAttribute("data-waiting")!)];

    private static AngleSharp.Dom.IElement Button<T>(IRenderedComponent<T> page, string text)
        where T : Microsoft.AspNetCore.Components.IComponent => page.FindAll("button").Single(b => b.TextContent.Trim() == text);
}
