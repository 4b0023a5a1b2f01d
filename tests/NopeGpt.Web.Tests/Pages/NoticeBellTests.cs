using Bunit;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using NopeGpt.Jobs;
using NopeGpt.Web.Components.Layout;
using NopeGpt.Web.Live;
using NopeGpt.Web.Tests.Live;

namespace NopeGpt.Web.Tests.Pages;

public sealed class NoticeBellTests
{
    [Fact]
    public async Task The_button_turns_notifications_on_and_off_and_says_which()
    {
        await using PageHost host = await PageHost.StartAsync();
        BunitJSModuleInterop script = host.Page.JSInterop.SetupModule("./js/notices.js");
        script.Setup<string>("state").SetResult("off");
        script.Setup<string>("turn", true).SetResult("on");
        script.Setup<string>("turn", false).SetResult("off");
        IRenderedComponent<NoticeBell> bell = host.Page.Render<NoticeBell>();
        bell.WaitForAssertion(() => Assert.Equal(("off", "false"), Shown(bell)));
        await bell.Find("button").ClickAsync(new());
        Assert.Equal(("on", "true"), Shown(bell));
        await bell.Find("button").ClickAsync(new());
        Assert.Equal(("off", "false"), Shown(bell));
    }

    [Theory]
    [InlineData("blocked", 1)]
    [InlineData("missing", 0)]
    public async Task Where_the_browser_does_not_let_it_there_is_nothing_to_press(string state, int buttons)
    {
        await using PageHost host = await PageHost.StartAsync();
        host.Page.JSInterop.SetupModule("./js/notices.js").Setup<string>("state").SetResult(state);
        IRenderedComponent<NoticeBell> bell = host.Page.Render<NoticeBell>();
        bell.WaitForAssertion(() => Assert.Equal(buttons, bell.FindAll("button").Count));
        Assert.Equal(buttons, bell.FindAll("button[disabled]").Count);
    }

    [Theory]
    [InlineData(RunState.Completed, null, "has finished")]
    [InlineData(RunState.Failed, ExitCode.Diverged, "has diverged")]
    [InlineData(RunState.Failed, ExitCode.OutOfMemory, "has failed")]
    public async Task An_end_is_shown_once_on_an_open_page(RunState state, int? code, string what)
    {
        Scribe run = null!;
        await using PageHost host = await PageHost.StartAsync(store => run = Story.Training(store, Story.Unsafe, RunState.Completed));
        BunitJSModuleInterop script = host.Page.JSInterop.SetupModule("./js/notices.js");
        script.Setup<string>("state").SetResult("on");
        script.SetupVoid("show", _ => true).SetVoidResult();
        RunNews news = host.Page.Services.GetRequiredService<RunNews>();
        await news.StartAsync(CancellationToken.None);
        IRenderedComponent<NoticeBell> bell = host.Page.Render<NoticeBell>();
        bell.WaitForAssertion(() => Assert.Equal("on", Shown(bell).Item1));
        // Another attempt comes and goes on a terminal; the queue sees what it left.
        run.Write(new StartedEvent(2, 0, 1, "cpu"), new EndedEvent(state, state == RunState.Failed ? "the reason " + Story.Unsafe : null, Code: code));
        run.Folder.WriteIdentity(new TrainerIdentity(int.MaxValue, 1));
        IHostedService watch = host.Page.Services.GetServices<IHostedService>().Single(s => s.GetType().Name == "FolderWatch");
        await watch.StartAsync(CancellationToken.None);
        await Wait.UntilAsync(() => script.Invocations["show"].Count > 0, "the notification");
        object?[] shown = [.. script.VerifyInvoke("show").Arguments];
        // As it is: the browser shows text, not markup.
        Assert.Equal([run.Id, $"{run.Id}.2", $"{Story.Unsafe} {what}", state == RunState.Failed ? "the reason " + Story.Unsafe : ""], shown);
        await watch.StopAsync(CancellationToken.None);
        await news.StopAsync(CancellationToken.None);
        Assert.Single(script.Invocations["show"]);
    }

    private static (string?, string?) Shown(IRenderedComponent<NoticeBell> bell) => (bell.Find("button").GetAttribute("data-notices"), bell.Find("button").GetAttribute("aria-pressed"));
}
