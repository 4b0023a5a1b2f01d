using Microsoft.EntityFrameworkCore.Infrastructure;
using Microsoft.EntityFrameworkCore.Migrations;

namespace NopeGpt.Jobs.Queue.Migrations;

/// <summary>The table of version 0.1, which made it without migrations.</summary>
[DbContext(typeof(RunTable))]
[Migration(Id)]
internal sealed class RunsMigration : Migration
{
    public const string Id = "20261120000000_Runs";

    protected override void Up(MigrationBuilder migrationBuilder)
    {
        migrationBuilder.CreateTable("Runs", table => new
        {
            Id = table.Column<string>(),
            Name = table.Column<string>(),
            Kind = table.Column<string>(),
            State = table.Column<string>(),
            Reason = table.Column<string>(nullable: true),
            Created = table.Column<long>(),
            Started = table.Column<long>(nullable: true),
            Ended = table.Column<long>(nullable: true),
            QueuePosition = table.Column<long>(),
            Attempt = table.Column<int>(),
            StopRequest = table.Column<string>(),
            After = table.Column<string>(),
            ResumesItself = table.Column<bool>(),
            LeaseOwner = table.Column<string>(nullable: true),
            ProcessId = table.Column<int>(nullable: true),
            ProcessStartTicks = table.Column<long>(nullable: true),
            Heartbeat = table.Column<long>(nullable: true),
            Step = table.Column<long>(),
            MaxSteps = table.Column<long>(),
        }, constraints: table => table.PrimaryKey("PK_Runs", row => row.Id));
        migrationBuilder.CreateIndex("IX_Runs_State_QueuePosition", "Runs", ["State", "QueuePosition"]);
    }

    protected override void Down(MigrationBuilder migrationBuilder) => migrationBuilder.DropTable("Runs");
}
